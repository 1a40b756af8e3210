// The scenarios through the document client of the AWS SDK for JavaScript, version 3: plain values, sets, big numbers.
import {
  ConditionalCheckFailedException, CreateTableCommand, DeleteTableCommand, DescribeTableCommand,
  DescribeTimeToLiveCommand, DynamoDBClient, DynamoDBServiceException, ListTagsOfResourceCommand,
  ResourceInUseException, ResourceNotFoundException, TagResourceCommand, TransactionCanceledException,
  UntagResourceCommand, UpdateTableCommand, UpdateTimeToLiveCommand, paginateListTables, waitUntilTableExists, waitUntilTableNotExists,
} from "@aws-sdk/client-dynamodb";
import {
  BatchGetCommand, BatchWriteCommand, DeleteCommand, DynamoDBDocumentClient, GetCommand, NumberValue, PutCommand,
  QueryCommand, TransactGetCommand, TransactWriteCommand, UpdateCommand, paginateQuery, paginateScan,
} from "@aws-sdk/lib-dynamodb";
import {
  all, counter, errorOf, indexNames, item, schema, second, secondSchema, soon, table, token, upTo,
} from "./scenarios.mjs";

const bare = new DynamoDBClient();
const client = DynamoDBDocumentClient.from(bare);
const exact = DynamoDBDocumentClient.from(new DynamoDBClient(), { unmarshallOptions: { wrapNumbers: true } });
const sparse = DynamoDBDocumentClient.from(new DynamoDBClient(), { marshallOptions: { removeUndefinedValues: true } });
const send = (command) => client.send(command);
const waiting = { client, maxWaitTime: 30 };
const key = (seen) => ({ species: "merganser", seen });

async function tables() {
  await send(new CreateTableCommand(schema));
  await waitUntilTableExists(waiting, { TableName: table });
  const { Table } = await send(new DescribeTableCommand({ TableName: table }));
  return {
    made: [Table.TableStatus, ...Table.KeySchema.map((one) => one.AttributeName)],
    again: (await errorOf(send(new CreateTableCommand(schema)), ResourceInUseException)).name,
    missing: (await errorOf(send(new GetCommand({ TableName: "missing", Key: key(1) })), ResourceNotFoundException)).name,
  };
}

async function batches() {
  const puts = upTo(26).map((i) => ({ PutRequest: { Item: { ...key(i), size: i } } }));
  let [left, written] = [{ [table]: puts.slice(0, 25) }, 0];
  while (left[table]) {
    const { UnprocessedItems } = await send(new BatchWriteCommand({ RequestItems: left }));
    written += left[table].length - (UnprocessedItems[table] ?? []).length;
    left = UnprocessedItems;
  }
  let [wanted, read] = [{ [table]: { Keys: upTo(25).map(key), ConsistentRead: true } }, 0];
  while (wanted[table]) {
    const { Responses, UnprocessedKeys } = await send(new BatchGetCommand({ RequestItems: wanted }));
    read += Responses[table].length;
    wanted = UnprocessedKeys;
  }
  const tooMany = send(new BatchWriteCommand({ RequestItems: { [table]: puts } }));
  return { written, read, too_many: (await errorOf(tooMany, DynamoDBServiceException)).name };
}

async function pages() {
  const asked = {
    TableName: table,
    KeyConditionExpression: "species = :s AND seen BETWEEN :first AND :last",
    ExpressionAttributeValues: { ":s": "merganser", ":first": 1, ":last": 25 },
    ConsistentRead: true,
  };
  const query = await all(paginateQuery({ client, pageSize: 10 }, { ...asked }));
  const backwards = await send(new QueryCommand({ ...asked, ScanIndexForward: false, Limit: 3 }));
  const filtered = await send(new QueryCommand({
    ...asked,
    FilterExpression: "#size > :size",
    ExpressionAttributeNames: { "#size": "size" },
    ExpressionAttributeValues: { ...asked.ExpressionAttributeValues, ":size": 20 },
  }));
  const whole = { TableName: table, ConsistentRead: true };
  const scan = await all(paginateScan({ client, pageSize: 7 }, { ...whole })); // which keeps its place in it
  const segments = await Promise.all(
    [0, 1].map((Segment) => all(paginateScan({ client }, { ...whole, Segment, TotalSegments: 2 }))),
  );
  return {
    query: query.map((page) => page.Count),
    seen: query.flatMap((page) => page.Items).map((one) => one.seen),
    backwards: backwards.Items.map((one) => one.seen),
    filtered: filtered.Items.map((one) => one.seen),
    scan: scan.map((page) => page.Count),
    segments: segments.flat().reduce((sum, page) => sum + page.Count, 0),
  };
}

async function items() {
  await send(new PutCommand({ TableName: table, Item: { ...key(1758), genus: "Mergus" } }));
  const get = (seen) => send(new GetCommand({ TableName: table, Key: key(seen), ConsistentRead: true }));
  const read = await get(1758);
  const absent = await get(9999);
  let updated;
  for (const _ of upTo(2)) {
    const ExpressionAttributeValues = { ":zero": 0, ":one": 1 };
    updated = await send(new UpdateCommand({ TableName: table, Key: key(1758), ...counter, ExpressionAttributeValues }));
  }
  const refused = await errorOf(
    send(new PutCommand({
      TableName: table,
      Item: key(1758),
      ConditionExpression: "attribute_not_exists(species)",
      ReturnValuesOnConditionCheckFailure: "ALL_OLD",
    })),
    ConditionalCheckFailedException,
  );
  const deleted = await send(new DeleteCommand({ TableName: table, Key: key(1758), ReturnValues: "ALL_OLD" }));
  return {
    read: read.Item.genus,
    absent: absent.Item === undefined,
    counted: String(updated.Attributes.count),
    refused: [refused.name, refused.Item.genus.S ?? refused.Item.genus],
    deleted: deleted.Attributes.genus,
  };
}

// From DynamoDB's JSON to plain values and back, by hand: the client's own marshalling is what is looked at.
function plain(value) {
  const [[kind, content]] = Object.entries(value);
  switch (kind) {
    case "N": return NumberValue.from(content);
    case "B": return Uint8Array.from(Buffer.from(content, "base64"));
    case "NULL": return null;
    case "SS": return new Set(content);
    case "NS": return new Set(content.map((one) => NumberValue.from(one)));
    case "BS": return new Set(content.map((one) => Uint8Array.from(Buffer.from(one, "base64"))));
    case "L": return content.map(plain);
    case "M": return plainMap(content);
    default: return content;
  }
}
const plainMap = (map) => Object.fromEntries(Object.entries(map).map(([name, value]) => [name, plain(value)]));

function typed(value) {
  if (value === null) return { NULL: true };
  if (typeof value === "string") return { S: value };
  if (typeof value === "boolean") return { BOOL: value };
  if (value instanceof NumberValue) return { N: value.toString() };
  if (value instanceof Uint8Array) return { B: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return { L: value.map(typed) };
  if (value instanceof Set) {
    const members = [...value].map(typed);
    const [kind] = Object.keys(members[0]);
    return { [`${kind}S`]: members.map((member) => member[kind]) };
  }
  return { M: typedMap(value) };
}
const typedMap = (map) => Object.fromEntries(Object.entries(map).map(([name, value]) => [name, typed(value)]));

async function types() {
  await exact.send(new PutCommand({ TableName: table, Item: plainMap(item) }));
  const Key = plainMap({ species: item.species, seen: item.seen });
  const { Item } = await exact.send(new GetCommand({ TableName: table, Key, ConsistentRead: true }));
  return typedMap(Item);
}

async function transactions() {
  const places = [1, 2].map((seen) => ({ species: "pair", seen }));
  const puts = ["one", "two"].map((name, i) => ({ Put: { TableName: table, Item: { ...places[i], name } } }));
  for (const _ of upTo(2)) {
    await send(new TransactWriteCommand({ TransactItems: puts, ClientRequestToken: token }));
  }
  const check = { TableName: table, Key: places[1], ConditionExpression: "attribute_not_exists(species)" };
  const TransactItems = [{ Delete: { TableName: table, Key: places[0] } }, { ConditionCheck: check }];
  const cancelled = await errorOf(send(new TransactWriteCommand({ TransactItems })), TransactionCanceledException);
  const { Responses } = await send(
    new TransactGetCommand({ TransactItems: places.map((Key) => ({ Get: { TableName: table, Key } })) }),
  );
  return {
    read: Responses.map((one) => one.Item.name),
    cancelled: [cancelled.name, cancelled.CancellationReasons.map((reason) => reason.Code)],
  };
}

async function indexes() {
  await send(new CreateTableCommand(secondSchema));
  await waitUntilTableExists(waiting, { TableName: second });
  for (const i of upTo(3)) {
    const genus = i < 3 ? "Mergus" : undefined; // which is left out
    const Item = { ...key(i), size: 10 - i, name: String(i), other: "x", genus };
    await sparse.send(new PutCommand({ TableName: second, Item }));
  }
  const local = await send(new QueryCommand({
    TableName: second,
    IndexName: "by-size",
    KeyConditionExpression: "species = :s",
    ExpressionAttributeValues: { ":s": "merganser" },
    ConsistentRead: true,
  }));
  const byGenus = {
    TableName: second,
    IndexName: "by-genus",
    KeyConditionExpression: "genus = :g",
    ExpressionAttributeValues: { ":g": "Mergus" },
  };
  const found = await soon(() => send(new QueryCommand(byGenus)), (answer) => answer.Count === 2);
  const asked = { ...byGenus, ConsistentRead: true };
  const consistent = await errorOf(send(new QueryCommand(asked)), DynamoDBServiceException);
  return {
    described: indexNames((await send(new DescribeTableCommand({ TableName: second }))).Table),
    local: local.Items.map((one) => one.seen),
    global: found.Items.map((one) => one.seen),
    projected: Object.keys(found.Items[0]).sort(),
    consistent: consistent.name,
  };
}

async function settings() {
  const TimeToLiveSpecification = { Enabled: true, AttributeName: "expires" };
  await send(new UpdateTimeToLiveCommand({ TableName: second, TimeToLiveSpecification }));
  const { TimeToLiveDescription } = await send(new DescribeTimeToLiveCommand({ TableName: second }));
  const ResourceArn = (await send(new DescribeTableCommand({ TableName: second }))).Table.TableArn;
  const tags = [{ Key: "a", Value: "1" }, { Key: "b", Value: "2" }];
  await send(new TagResourceCommand({ ResourceArn, Tags: tags }));
  await send(new UntagResourceCommand({ ResourceArn, TagKeys: ["a"] }));
  const { Tags } = await send(new ListTagsOfResourceCommand({ ResourceArn }));
  await send(new UpdateTableCommand({ TableName: second, DeletionProtectionEnabled: true }));
  await waitUntilTableExists(waiting, { TableName: second });
  const kept = await errorOf(send(new DeleteTableCommand({ TableName: second })), DynamoDBServiceException);
  await send(new UpdateTableCommand({ TableName: second, DeletionProtectionEnabled: false }));
  await waitUntilTableExists(waiting, { TableName: second });
  return {
    expiry: [TimeToLiveDescription.TimeToLiveStatus, TimeToLiveDescription.AttributeName],
    tags: Tags.map((tag) => [tag.Key, tag.Value]),
    protected: kept.name,
  };
}

async function legacy() {
  const put = send(new PutCommand({ TableName: second, Item: key(1), Expected: { species: { Exists: false } } }));
  const refused = await errorOf(put, ConditionalCheckFailedException);
  const { Items } = await send(new QueryCommand({
    TableName: second,
    KeyConditions: { species: { AttributeValueList: ["merganser"], ComparisonOperator: "EQ" } },
    QueryFilter: { size: { AttributeValueList: [8], ComparisonOperator: "GE" } },
    AttributesToGet: ["seen"],
  }));
  return { refused: refused.name, seen: Items.map((one) => one.seen) };
}

async function dropped() {
  for (const TableName of [table, second]) {
    await send(new DeleteTableCommand({ TableName }));
    await waitUntilTableNotExists(waiting, { TableName });
  }
  const gone = await errorOf(send(new DescribeTableCommand({ TableName: table })), ResourceNotFoundException);
  const names = (await all(paginateListTables({ client: bare }, {}))).flatMap((page) => page.TableNames);
  return { gone: gone.name, is_listed: names.includes(table) || names.includes(second) };
}

const seen = {};
for (const scenario of [tables, batches, pages, items, types, transactions, indexes, settings, legacy, dropped]) {
  seen[scenario.name] = await scenario();
}
console.log(JSON.stringify(seen));
