// The scenarios through the AWS SDK for JavaScript, version 3.
import {
  BatchGetItemCommand, BatchWriteItemCommand, ConditionalCheckFailedException, CreateTableCommand, DeleteItemCommand,
  DeleteTableCommand, DescribeTableCommand, DescribeTimeToLiveCommand, DynamoDBClient, DynamoDBServiceException,
  GetItemCommand, ListTagsOfResourceCommand, PutItemCommand, TagResourceCommand, UntagResourceCommand,
  UpdateTableCommand, UpdateTimeToLiveCommand,
  QueryCommand, ResourceInUseException, ResourceNotFoundException, TransactGetItemsCommand, TransactWriteItemsCommand,
  TransactionCanceledException, UpdateItemCommand, paginateListTables, paginateQuery, paginateScan,
  waitUntilTableExists, waitUntilTableNotExists,
} from "@aws-sdk/client-dynamodb";
import {
  all, counter, errorOf, indexNames, item, schema, second, secondSchema, soon, table, token, upTo,
} from "./scenarios.mjs";

const client = new DynamoDBClient();
const send = (command) => client.send(command);
const waiting = { client, maxWaitTime: 30 };
const key = (seen) => ({ species: { S: "merganser" }, seen: { N: String(seen) } });

async function tables() {
  await send(new CreateTableCommand(schema));
  await waitUntilTableExists(waiting, { TableName: table });
  const { Table } = await send(new DescribeTableCommand({ TableName: table }));
  return {
    made: [Table.TableStatus, ...Table.KeySchema.map((one) => one.AttributeName)],
    again: (await errorOf(send(new CreateTableCommand(schema)), ResourceInUseException)).name,
    missing: (await errorOf(send(new DescribeTableCommand({ TableName: "missing" })), ResourceNotFoundException)).name,
  };
}

async function batches() {
  const puts = upTo(26).map((i) => ({ PutRequest: { Item: { ...key(i), size: { N: String(i) } } } }));
  let [left, written] = [{ [table]: puts.slice(0, 25) }, 0];
  while (left[table]) {
    const { UnprocessedItems } = await send(new BatchWriteItemCommand({ RequestItems: left }));
    written += left[table].length - (UnprocessedItems[table] ?? []).length;
    left = UnprocessedItems;
  }
  let [wanted, read] = [{ [table]: { Keys: upTo(25).map(key), ConsistentRead: true } }, 0];
  while (wanted[table]) {
    const { Responses, UnprocessedKeys } = await send(new BatchGetItemCommand({ RequestItems: wanted }));
    read += Responses[table].length;
    wanted = UnprocessedKeys;
  }
  const tooMany = send(new BatchWriteItemCommand({ RequestItems: { [table]: puts } }));
  return { written, read, too_many: (await errorOf(tooMany, DynamoDBServiceException)).name };
}

async function pages() {
  const asked = {
    TableName: table,
    KeyConditionExpression: "species = :s",
    ExpressionAttributeValues: { ":s": { S: "merganser" } },
    ConsistentRead: true,
  };
  const seenOf = (items) => items.map((one) => Number(one.seen.N));
  const query = await all(paginateQuery({ client, pageSize: 10 }, { ...asked }));
  const backwards = await send(new QueryCommand({ ...asked, ScanIndexForward: false, Limit: 3 }));
  const filtered = await send(new QueryCommand({
    ...asked,
    FilterExpression: "#size > :size",
    ExpressionAttributeNames: { "#size": "size" },
    ExpressionAttributeValues: { ...asked.ExpressionAttributeValues, ":size": { N: "20" } },
  }));
  const whole = { TableName: table, ConsistentRead: true };
  const scan = await all(paginateScan({ client, pageSize: 7 }, { ...whole })); // which keeps its place in it
  const segments = await Promise.all(
    [0, 1].map((Segment) => all(paginateScan({ client }, { ...whole, Segment, TotalSegments: 2 }))),
  );
  return {
    query: query.map((page) => page.Count),
    seen: seenOf(query.flatMap((page) => page.Items)),
    backwards: seenOf(backwards.Items),
    filtered: seenOf(filtered.Items),
    scan: scan.map((page) => page.Count),
    segments: segments.flat().reduce((sum, page) => sum + page.Count, 0),
  };
}

async function items() {
  await send(new PutItemCommand({ TableName: table, Item: { ...key(1758), genus: { S: "Mergus" } } }));
  const get = (seen) => send(new GetItemCommand({ TableName: table, Key: key(seen), ConsistentRead: true }));
  const read = await get(1758);
  const absent = await get(9999);
  let updated;
  for (const _ of upTo(2)) {
    const ExpressionAttributeValues = { ":zero": { N: "0" }, ":one": { N: "1" } };
    updated = await send(
      new UpdateItemCommand({ TableName: table, Key: key(1758), ...counter, ExpressionAttributeValues }),
    );
  }
  const refused = await errorOf(
    send(new PutItemCommand({
      TableName: table,
      Item: key(1758),
      ConditionExpression: "attribute_not_exists(species)",
      ReturnValuesOnConditionCheckFailure: "ALL_OLD",
    })),
    ConditionalCheckFailedException,
  );
  const deleted = await send(new DeleteItemCommand({ TableName: table, Key: key(1758), ReturnValues: "ALL_OLD" }));
  return {
    read: read.Item.genus.S,
    absent: absent.Item === undefined,
    counted: updated.Attributes.count.N,
    refused: [refused.name, refused.Item.genus.S],
    deleted: deleted.Attributes.genus.S,
  };
}

const mapped = (value, binary) => {
  const [kind] = Object.keys(value);
  if (kind === "B") return { B: binary(value.B) };
  return kind === "BS" ? { BS: value.BS.map(binary) } : value;
};
const eachOf = (one, binary) => Object.fromEntries(Object.entries(one).map(([k, v]) => [k, mapped(v, binary)]));

async function types() {
  const given = eachOf(item, (text) => Uint8Array.from(Buffer.from(text, "base64")));
  await send(new PutItemCommand({ TableName: table, Item: given }));
  const Key = { species: item.species, seen: item.seen };
  const { Item } = await send(new GetItemCommand({ TableName: table, Key, ConsistentRead: true }));
  return eachOf(Item, (bytes) => Buffer.from(bytes).toString("base64"));
}

async function transactions() {
  const places = [1, 2].map((i) => ({ species: { S: "pair" }, seen: { N: String(i) } }));
  const puts = ["one", "two"].map((name, i) => ({
    Put: { TableName: table, Item: { ...places[i], name: { S: name } } },
  }));
  for (const _ of upTo(2)) {
    await send(new TransactWriteItemsCommand({ TransactItems: puts, ClientRequestToken: token }));
  }
  const check = { TableName: table, Key: places[1], ConditionExpression: "attribute_not_exists(species)" };
  const TransactItems = [{ Delete: { TableName: table, Key: places[0] } }, { ConditionCheck: check }];
  const cancelled = await errorOf(send(new TransactWriteItemsCommand({ TransactItems })), TransactionCanceledException);
  const gets = places.map((Key) => ({ Get: { TableName: table, Key } }));
  const { Responses } = await send(new TransactGetItemsCommand({ TransactItems: gets }));
  return {
    read: Responses.map((one) => one.Item.name.S),
    cancelled: [cancelled.name, cancelled.CancellationReasons.map((reason) => reason.Code)],
  };
}

async function indexes() {
  await send(new CreateTableCommand(secondSchema));
  await waitUntilTableExists(waiting, { TableName: second });
  for (const i of upTo(3)) {
    const more = i < 3 ? { genus: { S: "Mergus" } } : {};
    const rest = { size: { N: String(10 - i) }, name: { S: String(i) }, other: { S: "x" }, ...more };
    await send(new PutItemCommand({ TableName: second, Item: { ...key(i), ...rest } }));
  }
  const seenOf = (answer) => answer.Items.map((one) => Number(one.seen.N));
  const local = await send(new QueryCommand({
    TableName: second,
    IndexName: "by-size",
    KeyConditionExpression: "species = :s",
    ExpressionAttributeValues: { ":s": { S: "merganser" } },
    ConsistentRead: true,
  }));
  const byGenus = {
    TableName: second,
    IndexName: "by-genus",
    KeyConditionExpression: "genus = :g",
    ExpressionAttributeValues: { ":g": { S: "Mergus" } },
  };
  const found = await soon(() => send(new QueryCommand(byGenus)), (answer) => answer.Count === 2);
  const asked = { ...byGenus, ConsistentRead: true };
  const consistent = await errorOf(send(new QueryCommand(asked)), DynamoDBServiceException);
  return {
    described: indexNames((await send(new DescribeTableCommand({ TableName: second }))).Table),
    local: seenOf(local),
    global: seenOf(found),
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
  const Expected = { species: { Exists: false } };
  const put = send(new PutItemCommand({ TableName: second, Item: key(1), Expected }));
  const refused = await errorOf(put, ConditionalCheckFailedException);
  const { Items } = await send(new QueryCommand({
    TableName: second,
    KeyConditions: { species: { AttributeValueList: [{ S: "merganser" }], ComparisonOperator: "EQ" } },
    QueryFilter: { size: { AttributeValueList: [{ N: "8" }], ComparisonOperator: "GE" } },
    AttributesToGet: ["seen"],
  }));
  return { refused: refused.name, seen: Items.map((one) => Number(one.seen.N)) };
}

async function dropped() {
  for (const TableName of [table, second]) {
    await send(new DeleteTableCommand({ TableName }));
    await waitUntilTableNotExists(waiting, { TableName });
  }
  const gone = await errorOf(send(new DescribeTableCommand({ TableName: table })), ResourceNotFoundException);
  const names = (await all(paginateListTables({ client }, {}))).flatMap((page) => page.TableNames);
  return { gone: gone.name, is_listed: names.includes(table) || names.includes(second) };
}

const seen = {};
for (const scenario of [tables, batches, pages, items, types, transactions, indexes, settings, legacy, dropped]) {
  seen[scenario.name] = await scenario();
}
console.log(JSON.stringify(seen));
