// The scenarios of ../expected.py through the AWS SDK for Go, version 2.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

type object = map[string]any
type values = map[string]types.AttributeValue

const waitAtMost = 30 * time.Second

var (
	ctx    = context.Background()
	table  = os.Args[1]
	second = table + "-2"
	client = dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(os.Getenv("AWS_ENDPOINT_URL_DYNAMODB")),
		Region:       os.Getenv("AWS_REGION"),
		Credentials: credentials.NewStaticCredentialsProvider(
			os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
	})
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

// refused returns err as the typed error that it must be.
func refused[T error](err error) T {
	var typed T
	if !errors.As(err, &typed) {
		panic(fmt.Sprintf("it was not refused as expected: %v", err))
	}
	return typed
}

func codeOf(err smithy.APIError) string { return err.ErrorCode() }

func s(text string) types.AttributeValue { return &types.AttributeValueMemberS{Value: text} }
func n(number int) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.Itoa(number)}
}
func textOf(value types.AttributeValue) string { return value.(*types.AttributeValueMemberS).Value }
func numberOf(value types.AttributeValue) int {
	return must(strconv.Atoi(value.(*types.AttributeValueMemberN).Value))
}
func key(seen int) values { return values{"species": s("merganser"), "seen": n(seen)} }

func tables() object {
	schema := &dynamodb.CreateTableInput{
		TableName: &table,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("species"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("seen"), AttributeType: types.ScalarAttributeTypeN},
		},
		KeySchema:   keys("species", "seen"),
		BillingMode: types.BillingModePayPerRequest,
	}
	must(client.CreateTable(ctx, schema))
	described := waitFor(&table)
	made := []string{string(described.TableStatus)}
	for _, one := range described.KeySchema {
		made = append(made, *one.AttributeName)
	}
	_, again := client.CreateTable(ctx, schema)
	_, missing := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("missing")})
	return object{
		"made":    made,
		"again":   codeOf(refused[*types.ResourceInUseException](again)),
		"missing": codeOf(refused[*types.ResourceNotFoundException](missing)),
	}
}

func batches() object {
	var puts []types.WriteRequest
	var keys []values
	for i := 1; i <= 26; i++ {
		item := key(i)
		item["size"] = n(i)
		puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: item}})
		keys = append(keys, key(i))
	}
	written, read := 0, 0
	for left := map[string][]types.WriteRequest{table: puts[:25]}; len(left) > 0; {
		answer := must(client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: left}))
		written += len(left[table]) - len(answer.UnprocessedItems[table])
		left = answer.UnprocessedItems
	}
	wanted := map[string]types.KeysAndAttributes{table: {Keys: keys[:25], ConsistentRead: aws.Bool(true)}}
	for len(wanted) > 0 {
		answer := must(client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: wanted}))
		read += len(answer.Responses[table])
		wanted = answer.UnprocessedKeys
	}
	_, tooMany := client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{
		RequestItems: map[string][]types.WriteRequest{table: puts},
	})
	return object{"written": written, "read": read, "too_many": codeOf(refused[smithy.APIError](tooMany))}
}

func seenOf(items []values) []int {
	seen := []int{}
	for _, item := range items {
		seen = append(seen, numberOf(item["seen"]))
	}
	return seen
}

func pages() object {
	asked := dynamodb.QueryInput{
		TableName:                 &table,
		KeyConditionExpression:    aws.String("species = :s"),
		ExpressionAttributeValues: values{":s": s("merganser")},
		ConsistentRead:            aws.Bool(true),
	}
	counts, seen := []int32{}, []int{}
	inTens := asked
	inTens.Limit = aws.Int32(10)
	for query := dynamodb.NewQueryPaginator(client, &inTens); query.HasMorePages(); {
		page := must(query.NextPage(ctx))
		counts = append(counts, page.Count)
		seen = append(seen, seenOf(page.Items)...)
	}
	backwards := asked
	backwards.ScanIndexForward, backwards.Limit = aws.Bool(false), aws.Int32(3)
	filtered := asked
	filtered.FilterExpression = aws.String("#size > :size")
	filtered.ExpressionAttributeNames = map[string]string{"#size": "size"}
	filtered.ExpressionAttributeValues = values{":s": s("merganser"), ":size": n(20)}

	whole := dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true)}
	scanned := func(input dynamodb.ScanInput) (counts []int32, sum int32) {
		for scan := dynamodb.NewScanPaginator(client, &input); scan.HasMorePages(); {
			page := must(scan.NextPage(ctx))
			counts = append(counts, page.Count)
			sum += page.Count
		}
		return
	}
	inSevens := whole
	inSevens.Limit = aws.Int32(7)
	scan, _ := scanned(inSevens)
	segments := int32(0)
	for i := int32(0); i < 2; i++ {
		segment := whole
		segment.Segment, segment.TotalSegments = &i, aws.Int32(2)
		_, sum := scanned(segment)
		segments += sum
	}
	return object{
		"query":     counts,
		"seen":      seen,
		"backwards": seenOf(must(client.Query(ctx, &backwards)).Items),
		"filtered":  seenOf(must(client.Query(ctx, &filtered)).Items),
		"scan":      scan,
		"segments":  segments,
	}
}

func items() object {
	item := key(1758)
	item["genus"] = s("Mergus")
	must(client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: item}))
	get := func(seen int) values {
		return must(client.GetItem(ctx, &dynamodb.GetItemInput{
			TableName: &table, Key: key(seen), ConsistentRead: aws.Bool(true),
		})).Item
	}
	read, absent := textOf(get(1758)["genus"]), get(9999) == nil
	counted := ""
	for range 2 {
		updated := must(client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName:                 &table,
			Key:                       key(1758),
			UpdateExpression:          aws.String("SET #count = if_not_exists(#count, :zero) + :one"),
			ExpressionAttributeNames:  map[string]string{"#count": "count"},
			ExpressionAttributeValues: values{":zero": n(0), ":one": n(1)},
			ReturnValues:              types.ReturnValueUpdatedNew,
		}))
		counted = updated.Attributes["count"].(*types.AttributeValueMemberN).Value
	}
	_, err := client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName:                           &table,
		Item:                                key(1758),
		ConditionExpression:                 aws.String("attribute_not_exists(species)"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	failed := refused[*types.ConditionalCheckFailedException](err)
	deleted := must(client.DeleteItem(ctx, &dynamodb.DeleteItemInput{
		TableName: &table, Key: key(1758), ReturnValues: types.ReturnValueAllOld,
	}))
	return object{
		"read":    read,
		"absent":  absent,
		"counted": counted,
		"refused": []string{codeOf(failed), textOf(failed.Item["genus"])},
		"deleted": textOf(deleted.Attributes["genus"]),
	}
}

func bytesOf(text any) []byte { return must(base64.StdEncoding.DecodeString(text.(string))) }

func listOf[T any](content any, convert func(any) T) []T {
	converted := []T{}
	for _, one := range content.([]any) {
		converted = append(converted, convert(one))
	}
	return converted
}

func asText(one any) string { return one.(string) }

func fromJSON(given any) types.AttributeValue {
	for kind, content := range given.(object) {
		switch kind {
		case "S":
			return s(content.(string))
		case "N":
			return &types.AttributeValueMemberN{Value: content.(string)}
		case "B":
			return &types.AttributeValueMemberB{Value: bytesOf(content)}
		case "BOOL":
			return &types.AttributeValueMemberBOOL{Value: content.(bool)}
		case "NULL":
			return &types.AttributeValueMemberNULL{Value: content.(bool)}
		case "SS":
			return &types.AttributeValueMemberSS{Value: listOf(content, asText)}
		case "NS":
			return &types.AttributeValueMemberNS{Value: listOf(content, asText)}
		case "BS":
			return &types.AttributeValueMemberBS{Value: listOf(content, bytesOf)}
		case "L":
			return &types.AttributeValueMemberL{Value: listOf(content, fromJSON)}
		case "M":
			return &types.AttributeValueMemberM{Value: mapFromJSON(content.(object))}
		}
	}
	panic(fmt.Sprint("no value of DynamoDB: ", given))
}

func mapFromJSON(given object) values {
	converted := values{}
	for name, value := range given {
		converted[name] = fromJSON(value)
	}
	return converted
}

func toJSON(value types.AttributeValue) any {
	switch one := value.(type) {
	case *types.AttributeValueMemberS:
		return object{"S": one.Value}
	case *types.AttributeValueMemberN:
		return object{"N": one.Value}
	case *types.AttributeValueMemberB:
		return object{"B": one.Value}
	case *types.AttributeValueMemberBOOL:
		return object{"BOOL": one.Value}
	case *types.AttributeValueMemberNULL:
		return object{"NULL": one.Value}
	case *types.AttributeValueMemberSS:
		return object{"SS": one.Value}
	case *types.AttributeValueMemberNS:
		return object{"NS": one.Value}
	case *types.AttributeValueMemberBS:
		return object{"BS": one.Value}
	case *types.AttributeValueMemberL:
		list := []any{}
		for _, element := range one.Value {
			list = append(list, toJSON(element))
		}
		return object{"L": list}
	case *types.AttributeValueMemberM:
		return object{"M": mapToJSON(one.Value)}
	}
	panic(fmt.Sprintf("no value of DynamoDB: %T", value))
}

func mapToJSON(given values) object {
	converted := object{}
	for name, value := range given {
		converted[name] = toJSON(value)
	}
	return converted
}

func everyType() object {
	var given object
	check(json.Unmarshal([]byte(os.Args[2]), &given))
	item := mapFromJSON(given)
	must(client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table, Item: item}))
	found := must(client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:      &table,
		Key:            values{"species": item["species"], "seen": item["seen"]},
		ConsistentRead: aws.Bool(true),
	}))
	return mapToJSON(found.Item)
}

func transactions() object {
	places := []values{{"species": s("pair"), "seen": n(1)}, {"species": s("pair"), "seen": n(2)}}
	var puts []types.TransactWriteItem
	var gets []types.TransactGetItem
	for i, name := range []string{"one", "two"} {
		item := values{"species": s("pair"), "seen": n(i + 1), "name": s(name)}
		puts = append(puts, types.TransactWriteItem{Put: &types.Put{TableName: &table, Item: item}})
		gets = append(gets, types.TransactGetItem{Get: &types.Get{TableName: &table, Key: places[i]}})
	}
	token := "token of " + table
	for range 2 {
		must(client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
			TransactItems: puts, ClientRequestToken: aws.String(token[:min(36, len(token))]),
		}))
	}
	_, err := client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
		TransactItems: []types.TransactWriteItem{
			{Delete: &types.Delete{TableName: &table, Key: places[0]}},
			{ConditionCheck: &types.ConditionCheck{
				TableName:           &table,
				Key:                 places[1],
				ConditionExpression: aws.String("attribute_not_exists(species)"),
			}},
		},
	})
	cancelled := refused[*types.TransactionCanceledException](err)
	reasons, read := []string{}, []string{}
	for _, reason := range cancelled.CancellationReasons {
		reasons = append(reasons, *reason.Code)
	}
	for _, one := range must(client.TransactGetItems(ctx, &dynamodb.TransactGetItemsInput{TransactItems: gets})).Responses {
		read = append(read, textOf(one.Item["name"]))
	}
	return object{"read": read, "cancelled": []any{codeOf(cancelled), reasons}}
}

func waitFor(name *string) *types.TableDescription {
	input := &dynamodb.DescribeTableInput{TableName: name}
	check(dynamodb.NewTableExistsWaiter(client).Wait(ctx, input, waitAtMost))
	return must(client.DescribeTable(ctx, input)).Table
}

func keys(partition, sort string) []types.KeySchemaElement {
	return []types.KeySchemaElement{
		{AttributeName: &partition, KeyType: types.KeyTypeHash},
		{AttributeName: &sort, KeyType: types.KeyTypeRange},
	}
}

func indexes() object {
	must(client.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &second,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("species"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("seen"), AttributeType: types.ScalarAttributeTypeN},
			{AttributeName: aws.String("size"), AttributeType: types.ScalarAttributeTypeN},
			{AttributeName: aws.String("genus"), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: keys("species", "seen"),
		LocalSecondaryIndexes: []types.LocalSecondaryIndex{{
			IndexName:  aws.String("by-size"),
			KeySchema:  keys("species", "size"),
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
		}},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String("by-genus"),
			KeySchema: keys("genus", "seen"),
			Projection: &types.Projection{
				ProjectionType: types.ProjectionTypeInclude, NonKeyAttributes: []string{"name"},
			},
		}},
		BillingMode: types.BillingModePayPerRequest,
	}))
	waitFor(&second)
	for i := 1; i <= 3; i++ {
		item := key(i)
		item["size"], item["name"], item["other"] = n(10-i), s(strconv.Itoa(i)), s("x")
		if i < 3 {
			item["genus"] = s("Mergus")
		}
		must(client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &second, Item: item}))
	}
	local := must(client.Query(ctx, &dynamodb.QueryInput{
		TableName:                 &second,
		IndexName:                 aws.String("by-size"),
		KeyConditionExpression:    aws.String("species = :s"),
		ExpressionAttributeValues: values{":s": s("merganser")},
		ConsistentRead:            aws.Bool(true),
	}))
	byGenus := &dynamodb.QueryInput{
		TableName:                 &second,
		IndexName:                 aws.String("by-genus"),
		KeyConditionExpression:    aws.String("genus = :g"),
		ExpressionAttributeValues: values{":g": s("Mergus")},
	}
	found := must(client.Query(ctx, byGenus))
	for tries := 0; found.Count < 2 && tries < 1000; tries++ {
		found = must(client.Query(ctx, byGenus))
	}
	byGenus.ConsistentRead = aws.Bool(true)
	_, consistent := client.Query(ctx, byGenus)
	projected := []string{}
	for name := range found.Items[0] {
		projected = append(projected, name)
	}
	sort.Strings(projected)
	described := waitFor(&second)
	global := described.GlobalSecondaryIndexes[0]
	return object{
		"described": []string{
			*global.IndexName, string(global.IndexStatus), *described.LocalSecondaryIndexes[0].IndexName,
		},
		"local":      seenOf(local.Items),
		"global":     seenOf(found.Items),
		"projected":  projected,
		"consistent": codeOf(refused[smithy.APIError](consistent)),
	}
}

func settings() object {
	must(client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName: &second,
		TimeToLiveSpecification: &types.TimeToLiveSpecification{
			Enabled: aws.Bool(true), AttributeName: aws.String("expires"),
		},
	}))
	expiry := must(client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &second}))
	arn := waitFor(&second).TableArn
	must(client.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: arn, Tags: []types.Tag{
		{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b"), Value: aws.String("2")},
	}}))
	must(client.UntagResource(ctx, &dynamodb.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"a"}}))
	tags := [][]string{}
	for _, tag := range must(client.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: arn})).Tags {
		tags = append(tags, []string{*tag.Key, *tag.Value})
	}
	protect := func(isProtected bool) {
		must(client.UpdateTable(ctx, &dynamodb.UpdateTableInput{
			TableName: &second, DeletionProtectionEnabled: &isProtected,
		}))
		waitFor(&second)
	}
	protect(true)
	_, protected := client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &second})
	protect(false)
	ttl := expiry.TimeToLiveDescription
	return object{
		"expiry":    []string{string(ttl.TimeToLiveStatus), *ttl.AttributeName},
		"tags":      tags,
		"protected": codeOf(refused[smithy.APIError](protected)),
	}
}

func legacy() object {
	_, err := client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &second,
		Item:      key(1),
		Expected:  map[string]types.ExpectedAttributeValue{"species": {Exists: aws.Bool(false)}},
	})
	found := must(client.Query(ctx, &dynamodb.QueryInput{
		TableName: &second,
		KeyConditions: map[string]types.Condition{"species": {
			AttributeValueList: []types.AttributeValue{s("merganser")},
			ComparisonOperator: types.ComparisonOperatorEq,
		}},
		QueryFilter: map[string]types.Condition{"size": {
			AttributeValueList: []types.AttributeValue{n(8)},
			ComparisonOperator: types.ComparisonOperatorGe,
		}},
		AttributesToGet: []string{"seen"},
	}))
	return object{
		"refused": codeOf(refused[*types.ConditionalCheckFailedException](err)),
		"seen":    seenOf(found.Items),
	}
}

func dropped() object {
	for _, name := range []string{table, second} {
		must(client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name}))
		waiter := dynamodb.NewTableNotExistsWaiter(client)
		check(waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: &name}, waitAtMost))
	}
	_, gone := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
	names := []string{}
	for list := dynamodb.NewListTablesPaginator(client, nil); list.HasMorePages(); {
		names = append(names, must(list.NextPage(ctx)).TableNames...)
	}
	return object{
		"gone":      codeOf(refused[*types.ResourceNotFoundException](gone)),
		"is_listed": slices.Contains(names, table) || slices.Contains(names, second),
	}
}

func main() {
	seen := object{}
	seen["tables"] = tables()
	seen["batches"] = batches()
	seen["pages"] = pages()
	seen["items"] = items()
	seen["types"] = everyType()
	seen["transactions"] = transactions()
	seen["indexes"] = indexes()
	seen["settings"] = settings()
	seen["legacy"] = legacy()
	seen["dropped"] = dropped()
	check(json.NewEncoder(os.Stdout).Encode(seen))
}
