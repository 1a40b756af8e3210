// What the two clients share: how they are asked. See ../expected.py for the scenarios.
export const [table, item] = [process.argv[2], JSON.parse(process.argv[3])];

export async function errorOf(promise, kind) {
  try {
    await promise;
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

export async function all(paginator) {
  const pages = [];
  for await (const page of paginator) pages.push(page);
  return pages;
}

export const upTo = (count) => Array.from({ length: count }, (_, i) => i + 1);
export const schema = {
  TableName: table,
  AttributeDefinitions: [
    { AttributeName: "species", AttributeType: "S" },
    { AttributeName: "seen", AttributeType: "N" },
  ],
  KeySchema: [
    { AttributeName: "species", KeyType: "HASH" },
    { AttributeName: "seen", KeyType: "RANGE" },
  ],
  BillingMode: "PAY_PER_REQUEST",
};
export const counter = {
  UpdateExpression: "SET #count = if_not_exists(#count, :zero) + :one",
  ExpressionAttributeNames: { "#count": "count" },
  ReturnValues: "UPDATED_NEW",
};
export const second = `${table}-2`;
const keys = (partition, sort) => [
  { AttributeName: partition, KeyType: "HASH" },
  { AttributeName: sort, KeyType: "RANGE" },
];
export const secondSchema = {
  TableName: second,
  AttributeDefinitions: [
    ...schema.AttributeDefinitions,
    { AttributeName: "size", AttributeType: "N" },
    { AttributeName: "genus", AttributeType: "S" },
  ],
  KeySchema: schema.KeySchema,
  LocalSecondaryIndexes: [
    { IndexName: "by-size", KeySchema: keys("species", "size"), Projection: { ProjectionType: "KEYS_ONLY" } },
  ],
  GlobalSecondaryIndexes: [
    {
      IndexName: "by-genus",
      KeySchema: keys("genus", "seen"),
      Projection: { ProjectionType: "INCLUDE", NonKeyAttributes: ["name"] },
    },
  ],
  BillingMode: "PAY_PER_REQUEST",
};
export async function soon(look, isThere) {
  let found;
  for (let i = 0; i < 1000; i++) {
    found = await look();
    if (isThere(found)) break;
  }
  return found;
}
export const indexNames = (described) => [
  ...described.GlobalSecondaryIndexes.flatMap((index) => [index.IndexName, index.IndexStatus]),
  ...described.LocalSecondaryIndexes.map((index) => index.IndexName),
];
export const token = `token of ${table}`.slice(0, 36);
