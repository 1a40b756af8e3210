// Somebody with a browser and dynamodb-admin: opens a table, puts items into it, looks at them, and deletes them and it.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, table] = process.argv.slice(2);
const program = createRequire(import.meta.url).resolve("dynamodb-admin/package.json").replace("package.json", "");
const options = ["-H", "127.0.0.1", "-p", "0", "--dynamo-endpoint", process.env.AWS_ENDPOINT_URL_DYNAMODB];
const admin = spawn(process.execPath, [`${program}dist/dynamodb-admin.js`, ...options], {
  stdio: ["ignore", "pipe", "inherit"],
});

async function listening() {
  for await (const line of createInterface({ input: admin.stdout })) {
    const found = line.match(/listening on (http:\S+)/);
    if (found) return found[1];
  }
  throw new Error("dynamodb-admin ended");
}

async function visit(page, home, problems) {
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("response", (answer) => answer.url().startsWith(home) && answer.status() >= 400 && problems.push(`${answer.status()} ${answer.url()}`));
  page.on("dialog", (dialog) => dialog.accept());
  const rows = async (search = "") => {
    await page.goto(`${home}/tables/${table}${search}`);
    const cells = page.locator("table.items-table tbody tr");
    await page.waitForLoadState("networkidle");
    return (await cells.allInnerTexts()).map((row) => row.split(/\s+/).filter(Boolean)).sort();
  };
  const add = async (item) => {
    await page.goto(`${home}/tables/${table}/add-item`);
    await page.evaluate((text) => editor.setValue(text), JSON.stringify(item)); // eslint-disable-line no-undef
    await page.click("#saveButton");
    await page.waitForURL(/\/items\//);
  };

  await page.goto(home);
  const listed = await page.locator(`#table-list [data-table-name="${table}"]`).count();
  await add({ species: "merganser", seen: 1758, genus: "Mergus" });
  await add({ species: "smew", seen: 1758, genus: "Mergellus" });
  const both = await rows();
  const filters = JSON.stringify({ genus: { operator: "=", value: "Mergellus", type: "S" } });
  const search = new URLSearchParams({ operationType: "query", queryableSelection: "by-genus", filters });
  const byGenus = await rows(`?${search}`);
  await page.goto(`${home}/tables/${table}/items/${encodeURIComponent("merganser,1758")}`);
  const opened = JSON.parse(await page.evaluate(() => editor.getValue())); // eslint-disable-line no-undef
  await page.click("text=Delete");
  await page.waitForURL(`${home}/tables/${table}`);
  const one = await rows();
  await page.goto(`${home}/tables/${table}/meta`);
  const crossed = await page.evaluate(across, [process.env.AWS_ENDPOINT_URL_DYNAMODB, table]);
  const described = (await page.textContent("body")).includes(table);
  await page.goto(`${home}/tables/${table}/ttl`);
  const expiry = (await page.textContent("body")).includes("expires");
  await page.goto(home);
  await page.locator(`#table-list [data-table-name="${table}"] >> text=Delete`).click();
  await page.waitForFunction((name) => !document.querySelector(`[data-table-name="${name}"]`), table);
  return { listed, both, byGenus, opened, one, described, expiry, crossed };
}

// A script of another origin, which sees what a browser lets it see.
function across([endpoint, tableName]) {
  const call = async (operation, body) => {
    const answer = await fetch(endpoint, {
      method: "POST",
      headers: {
        "X-Amz-Target": `DynamoDB_20120810.${operation}`,
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Date": "20260921T133320Z",
        Authorization: "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0",
      },
      body: JSON.stringify(body),
    });
    return { status: answer.status, id: answer.headers.get("x-amzn-requestid"), body: await answer.json() };
  };
  const item = { species: { S: "gull" }, seen: { N: "1" }, call: { S: "kee-ow ".repeat(1000) } };
  return call("PutItem", { TableName: tableName, Item: item })
    .then(() => Promise.all([call("Scan", { TableName: tableName }), call("Nope", {})]));
}

let browser;
const problems = [];
try {
  const home = await listening();
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const page = await browser.newPage();
  page.setDefaultTimeout(15_000);
  console.log(JSON.stringify({ ...(await visit(page, home, problems)), problems }));
} catch (error) {
  console.error(error, problems);
  process.exitCode = 1;
} finally {
  await browser?.close();
  admin.kill();
}
