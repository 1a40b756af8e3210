import java.net.URI;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.exception.AwsServiceException;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.dynamodb.DynamoDbClient;
import software.amazon.awssdk.services.dynamodb.model.*;

/** The scenarios of ../expected.py through the AWS SDK for Java, version 2. */
public class Scenarios {
    static final Map<String, String> ENVIRONMENT = System.getenv();
    static final DynamoDbClient CLIENT = DynamoDbClient.builder()
            .endpointOverride(URI.create(ENVIRONMENT.get("AWS_ENDPOINT_URL_DYNAMODB")))
            .region(Region.of(ENVIRONMENT.get("AWS_REGION")))
            .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create(
                    ENVIRONMENT.get("AWS_ACCESS_KEY_ID"), ENVIRONMENT.get("AWS_SECRET_ACCESS_KEY"))))
            .build();
    static String table;
    static String second;
    static String item;

    static <T extends AwsServiceException> T refused(Class<T> kind, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (AwsServiceException error) {
            return kind.cast(error);
        }
        throw new AssertionError("it was not refused");
    }

    static String codeOf(AwsServiceException error) {
        return error.awsErrorDetails().errorCode();
    }

    static AttributeValue s(String text) {
        return AttributeValue.fromS(text);
    }

    static AttributeValue n(int number) {
        return AttributeValue.fromN(Integer.toString(number));
    }

    static Map<String, AttributeValue> key(int seen) {
        return Map.of("species", s("merganser"), "seen", n(seen));
    }

    static Map<String, AttributeValue> with(Map<String, AttributeValue> key, String name, AttributeValue value) {
        Map<String, AttributeValue> more = new LinkedHashMap<>(key);
        more.put(name, value);
        return more;
    }

    static Object tables() throws Exception {
        CreateTableRequest schema = CreateTableRequest.builder()
                .tableName(table)
                .attributeDefinitions(attributes("species", "S", "seen", "N"))
                .keySchema(keys("species", "seen"))
                .billingMode(BillingMode.PAY_PER_REQUEST)
                .build();
        CLIENT.createTable(schema);
        TableDescription described = waitFor(table);
        List<Object> made = new ArrayList<>(List.of(described.tableStatusAsString()));
        described.keySchema().forEach(one -> made.add(one.attributeName()));
        return object(
                "made", made,
                "again", codeOf(refused(ResourceInUseException.class, () -> CLIENT.createTable(schema))),
                "missing", codeOf(refused(ResourceNotFoundException.class,
                        () -> CLIENT.describeTable(request -> request.tableName("missing")))));
    }

    static Object batches() throws Exception {
        List<WriteRequest> puts = IntStream.rangeClosed(1, 26)
                .mapToObj(i -> WriteRequest.builder()
                        .putRequest(put -> put.item(with(key(i), "size", n(i)))).build())
                .toList();
        int written = 0;
        int read = 0;
        Map<String, List<WriteRequest>> left = Map.of(table, puts.subList(0, 25));
        while (!left.isEmpty()) {
            Map<String, List<WriteRequest>> now = left;
            left = CLIENT.batchWriteItem(request -> request.requestItems(now)).unprocessedItems();
            written += now.get(table).size() - left.getOrDefault(table, List.of()).size();
        }
        List<Map<String, AttributeValue>> keys = IntStream.rangeClosed(1, 25).mapToObj(Scenarios::key).toList();
        Map<String, KeysAndAttributes> wanted =
                Map.of(table, KeysAndAttributes.builder().keys(keys).consistentRead(true).build());
        while (!wanted.isEmpty()) {
            Map<String, KeysAndAttributes> now = wanted;
            BatchGetItemResponse answer = CLIENT.batchGetItem(request -> request.requestItems(now));
            read += answer.responses().get(table).size();
            wanted = answer.unprocessedKeys();
        }
        DynamoDbException tooMany = refused(DynamoDbException.class,
                () -> CLIENT.batchWriteItem(request -> request.requestItems(Map.of(table, puts))));
        return object("written", written, "read", read, "too_many", codeOf(tooMany));
    }

    static List<Integer> seenOf(List<Map<String, AttributeValue>> items) {
        return items.stream().map(one -> Integer.valueOf(one.get("seen").n())).toList();
    }

    static Object pages() {
        QueryRequest asked = QueryRequest.builder()
                .tableName(table)
                .keyConditionExpression("species = :s")
                .expressionAttributeValues(Map.of(":s", s("merganser")))
                .consistentRead(true)
                .build();
        List<QueryResponse> query = CLIENT.queryPaginator(asked.toBuilder().limit(10).build()).stream().toList();
        QueryResponse backwards = CLIENT.query(asked.toBuilder().scanIndexForward(false).limit(3).build());
        QueryResponse filtered = CLIENT.query(asked.toBuilder()
                .filterExpression("#size > :size")
                .expressionAttributeNames(Map.of("#size", "size"))
                .expressionAttributeValues(Map.of(":s", s("merganser"), ":size", n(20)))
                .build());
        ScanRequest whole = ScanRequest.builder().tableName(table).consistentRead(true).build();
        List<Integer> scan = CLIENT.scanPaginator(whole.toBuilder().limit(7).build()).stream()
                .map(ScanResponse::count).toList();
        long segments = IntStream.range(0, 2).mapToLong(i -> CLIENT
                .scanPaginator(whole.toBuilder().segment(i).totalSegments(2).build()).items().stream().count()).sum();
        return object(
                "query", query.stream().map(QueryResponse::count).toList(),
                "seen", query.stream().flatMap(page -> seenOf(page.items()).stream()).toList(),
                "backwards", seenOf(backwards.items()),
                "filtered", seenOf(filtered.items()),
                "scan", scan,
                "segments", segments);
    }

    static Object items() throws Exception {
        CLIENT.putItem(request -> request.tableName(table).item(with(key(1758), "genus", s("Mergus"))));
        GetItemResponse read = CLIENT.getItem(get -> get.tableName(table).key(key(1758)).consistentRead(true));
        GetItemResponse absent = CLIENT.getItem(get -> get.tableName(table).key(key(9999)).consistentRead(true));
        String counted = "";
        for (int i = 0; i < 2; i++) {
            counted = CLIENT.updateItem(request -> request.tableName(table).key(key(1758))
                    .updateExpression("SET #count = if_not_exists(#count, :zero) + :one")
                    .expressionAttributeNames(Map.of("#count", "count"))
                    .expressionAttributeValues(Map.of(":zero", n(0), ":one", n(1)))
                    .returnValues(ReturnValue.UPDATED_NEW)).attributes().get("count").n();
        }
        ConditionalCheckFailedException failed = refused(ConditionalCheckFailedException.class,
                () -> CLIENT.putItem(request -> request.tableName(table).item(key(1758))
                        .conditionExpression("attribute_not_exists(species)")
                        .returnValuesOnConditionCheckFailure(ReturnValuesOnConditionCheckFailure.ALL_OLD)));
        DeleteItemResponse deleted = CLIENT.deleteItem(
                request -> request.tableName(table).key(key(1758)).returnValues(ReturnValue.ALL_OLD));
        return object(
                "read", read.item().get("genus").s(),
                "absent", !absent.hasItem(),
                "counted", counted,
                "refused", List.of(codeOf(failed), failed.item().get("genus").s()),
                "deleted", deleted.attributes().get("genus").s());
    }

    static SdkBytes bytesOf(JsonNode text) {
        return SdkBytes.fromByteArray(Base64.getDecoder().decode(text.asString()));
    }

    static AttributeValue fromJson(JsonNode given) {
        Map.Entry<String, JsonNode> only = given.asObject().entrySet().iterator().next();
        JsonNode content = only.getValue();
        return switch (only.getKey()) {
            case "S" -> s(content.asString());
            case "N" -> AttributeValue.fromN(content.asString());
            case "B" -> AttributeValue.fromB(bytesOf(content));
            case "BOOL" -> AttributeValue.fromBool(content.asBoolean());
            case "NULL" -> AttributeValue.fromNul(content.asBoolean());
            case "SS" -> AttributeValue.fromSs(content.asArray().stream().map(JsonNode::asString).toList());
            case "NS" -> AttributeValue.fromNs(content.asArray().stream().map(JsonNode::asString).toList());
            case "BS" -> AttributeValue.fromBs(content.asArray().stream().map(Scenarios::bytesOf).toList());
            case "L" -> AttributeValue.fromL(content.asArray().stream().map(Scenarios::fromJson).toList());
            case "M" -> AttributeValue.fromM(mapFromJson(content));
            default -> throw new AssertionError("no value of DynamoDB: " + given);
        };
    }

    static Map<String, AttributeValue> mapFromJson(JsonNode given) {
        return given.asObject().entrySet().stream()
                .collect(Collectors.toMap(Map.Entry::getKey, one -> fromJson(one.getValue())));
    }

    static String base64(SdkBytes bytes) {
        return Base64.getEncoder().encodeToString(bytes.asByteArray());
    }

    static Object toJson(AttributeValue value) {
        return switch (value.type()) {
            case S -> object("S", value.s());
            case N -> object("N", value.n());
            case B -> object("B", base64(value.b()));
            case BOOL -> object("BOOL", value.bool());
            case NUL -> object("NULL", value.nul());
            case SS -> object("SS", value.ss());
            case NS -> object("NS", value.ns());
            case BS -> object("BS", value.bs().stream().map(Scenarios::base64).toList());
            case L -> object("L", value.l().stream().map(Scenarios::toJson).toList());
            case M -> object("M", mapToJson(value.m()));
            default -> throw new AssertionError("no value of DynamoDB: " + value);
        };
    }

    static Map<String, Object> mapToJson(Map<String, AttributeValue> given) {
        Map<String, Object> converted = new LinkedHashMap<>();
        given.forEach((name, value) -> converted.put(name, toJson(value)));
        return converted;
    }

    static Object types() {
        Map<String, AttributeValue> given = mapFromJson(JsonNode.parser().parse(item));
        CLIENT.putItem(request -> request.tableName(table).item(given));
        Map<String, AttributeValue> key = Map.of("species", given.get("species"), "seen", given.get("seen"));
        return mapToJson(CLIENT.getItem(get -> get.tableName(table).key(key).consistentRead(true)).item());
    }

    static Object transactions() throws Exception {
        List<Map<String, AttributeValue>> places =
                IntStream.rangeClosed(1, 2).mapToObj(i -> Map.of("species", s("pair"), "seen", n(i))).toList();
        List<TransactWriteItem> puts = IntStream.range(0, 2).mapToObj(i -> TransactWriteItem.builder()
                .put(put -> put.tableName(table).item(with(places.get(i), "name", s(i == 0 ? "one" : "two"))))
                .build()).toList();
        String token = "token of " + table;
        for (int i = 0; i < 2; i++) {
            CLIENT.transactWriteItems(request -> request.transactItems(puts)
                    .clientRequestToken(token.substring(0, Math.min(36, token.length()))));
        }
        TransactionCanceledException cancelled = refused(TransactionCanceledException.class,
                () -> CLIENT.transactWriteItems(request -> request.transactItems(
                        TransactWriteItem.builder()
                                .delete(delete -> delete.tableName(table).key(places.get(0))).build(),
                        TransactWriteItem.builder().conditionCheck(check -> check.tableName(table).key(places.get(1))
                                .conditionExpression("attribute_not_exists(species)")).build())));
        List<TransactGetItem> gets = places.stream().map(place -> TransactGetItem.builder()
                .get(get -> get.tableName(table).key(place)).build()).toList();
        List<ItemResponse> read = CLIENT.transactGetItems(request -> request.transactItems(gets)).responses();
        List<String> reasons = cancelled.cancellationReasons().stream().map(CancellationReason::code).toList();
        return object(
                "read", read.stream().map(one -> one.item().get("name").s()).toList(),
                "cancelled", List.of(codeOf(cancelled), reasons));
    }

    static List<KeySchemaElement> keys(String partition, String sort) {
        return List.of(
                KeySchemaElement.builder().attributeName(partition).keyType(KeyType.HASH).build(),
                KeySchemaElement.builder().attributeName(sort).keyType(KeyType.RANGE).build());
    }

    static List<AttributeDefinition> attributes(String... namesAndTypes) {
        return IntStream.range(0, namesAndTypes.length / 2).mapToObj(i -> AttributeDefinition.builder()
                .attributeName(namesAndTypes[2 * i]).attributeType(namesAndTypes[2 * i + 1]).build()).toList();
    }

    static TableDescription waitFor(String name) {
        CLIENT.waiter().waitUntilTableExists(request -> request.tableName(name));
        return CLIENT.describeTable(request -> request.tableName(name)).table();
    }

    static Object indexes() throws Exception {
        CLIENT.createTable(request -> request.tableName(second)
                .attributeDefinitions(attributes("species", "S", "seen", "N", "size", "N", "genus", "S"))
                .keySchema(keys("species", "seen"))
                .localSecondaryIndexes(LocalSecondaryIndex.builder()
                        .indexName("by-size").keySchema(keys("species", "size"))
                        .projection(projection -> projection.projectionType(ProjectionType.KEYS_ONLY)).build())
                .globalSecondaryIndexes(GlobalSecondaryIndex.builder()
                        .indexName("by-genus").keySchema(keys("genus", "seen"))
                        .projection(projection -> projection
                                .projectionType(ProjectionType.INCLUDE).nonKeyAttributes("name")).build())
                .billingMode(BillingMode.PAY_PER_REQUEST));
        waitFor(second);
        for (int i = 1; i <= 3; i++) {
            Map<String, AttributeValue> item = new LinkedHashMap<>(key(i));
            item.putAll(Map.of("size", n(10 - i), "name", s(Integer.toString(i)), "other", s("x")));
            if (i < 3) {
                item.put("genus", s("Mergus"));
            }
            CLIENT.putItem(request -> request.tableName(second).item(item));
        }
        QueryResponse local = CLIENT.query(query -> query.tableName(second).indexName("by-size")
                .keyConditionExpression("species = :s").expressionAttributeValues(Map.of(":s", s("merganser")))
                .consistentRead(true));
        QueryRequest byGenus = QueryRequest.builder().tableName(second).indexName("by-genus")
                .keyConditionExpression("genus = :g").expressionAttributeValues(Map.of(":g", s("Mergus"))).build();
        QueryResponse found = CLIENT.query(byGenus);
        for (int tries = 0; found.count() < 2 && tries < 1000; tries++) {
            found = CLIENT.query(byGenus);
        }
        TableDescription described = waitFor(second);
        GlobalSecondaryIndexDescription global = described.globalSecondaryIndexes().get(0);
        return object(
                "described", List.of(global.indexName(), global.indexStatusAsString(),
                        described.localSecondaryIndexes().get(0).indexName()),
                "local", seenOf(local.items()),
                "global", seenOf(found.items()),
                "projected", found.items().get(0).keySet().stream().sorted().toList(),
                "consistent", codeOf(refused(DynamoDbException.class,
                        () -> CLIENT.query(byGenus.toBuilder().consistentRead(true).build()))));
    }

    static Object settings() throws Exception {
        CLIENT.updateTimeToLive(request -> request.tableName(second)
                .timeToLiveSpecification(expiry -> expiry.enabled(true).attributeName("expires")));
        TimeToLiveDescription expiry =
                CLIENT.describeTimeToLive(request -> request.tableName(second)).timeToLiveDescription();
        String arn = waitFor(second).tableArn();
        CLIENT.tagResource(request -> request.resourceArn(arn).tags(
                Tag.builder().key("a").value("1").build(), Tag.builder().key("b").value("2").build()));
        CLIENT.untagResource(request -> request.resourceArn(arn).tagKeys("a"));
        List<Tag> tags = CLIENT.listTagsOfResource(request -> request.resourceArn(arn)).tags();
        CLIENT.updateTable(request -> request.tableName(second).deletionProtectionEnabled(true));
        waitFor(second);
        DynamoDbException kept = refused(DynamoDbException.class,
                () -> CLIENT.deleteTable(request -> request.tableName(second)));
        CLIENT.updateTable(request -> request.tableName(second).deletionProtectionEnabled(false));
        waitFor(second);
        return object(
                "expiry", List.of(expiry.timeToLiveStatusAsString(), expiry.attributeName()),
                "tags", tags.stream().map(tag -> List.of(tag.key(), tag.value())).toList(),
                "protected", codeOf(kept));
    }

    static Object legacy() throws Exception {
        ConditionalCheckFailedException failed = refused(ConditionalCheckFailedException.class,
                () -> CLIENT.putItem(request -> request.tableName(second).item(key(1)).expected(
                        Map.of("species", ExpectedAttributeValue.builder().exists(false).build()))));
        QueryResponse found = CLIENT.query(query -> query.tableName(second)
                .keyConditions(Map.of("species", Condition.builder()
                        .attributeValueList(s("merganser")).comparisonOperator(ComparisonOperator.EQ).build()))
                .queryFilter(Map.of("size", Condition.builder()
                        .attributeValueList(n(8)).comparisonOperator(ComparisonOperator.GE).build()))
                .attributesToGet("seen"));
        return object("refused", codeOf(failed), "seen", seenOf(found.items()));
    }

    static Object dropped() throws Exception {
        for (String name : List.of(table, second)) {
            CLIENT.deleteTable(request -> request.tableName(name));
            CLIENT.waiter().waitUntilTableNotExists(request -> request.tableName(name));
        }
        ResourceNotFoundException gone = refused(ResourceNotFoundException.class,
                () -> CLIENT.describeTable(request -> request.tableName(table)));
        boolean isListed = CLIENT.listTablesPaginator().tableNames().stream().anyMatch(List.of(table, second)::contains);
        return object("gone", codeOf(gone), "is_listed", isListed);
    }

    static Map<String, Object> object(Object... namesAndValues) {
        Map<String, Object> made = new LinkedHashMap<>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            made.put((String) namesAndValues[i], namesAndValues[i + 1]);
        }
        return made;
    }

    static String json(Object value) {
        if (value instanceof Map<?, ?> map) {
            return map.entrySet().stream().map(one -> json(one.getKey()) + ":" + json(one.getValue()))
                    .collect(Collectors.joining(",", "{", "}"));
        }
        if (value instanceof List<?> list) {
            return list.stream().map(Scenarios::json).collect(Collectors.joining(",", "[", "]"));
        }
        if (value instanceof String text) {
            return text.chars()
                    .mapToObj(unit -> unit < 0x20 || unit > 0x7e || unit == '"' || unit == '\\'
                            ? String.format("\\u%04x", unit) : String.valueOf((char) unit))
                    .collect(Collectors.joining("", "\"", "\""));
        }
        return String.valueOf(value);
    }

    public static void main(String[] arguments) throws Exception {
        table = arguments[0];
        second = table + "-2";
        item = arguments[1];
        System.out.println(json(object(
                "tables", tables(), "batches", batches(), "pages", pages(), "items", items(), "types", types(),
                "transactions", transactions(), "indexes", indexes(), "settings", settings(), "legacy", legacy(),
                "dropped", dropped())));
    }
}
