// Reads Azure Monitor queries with Microsoft's own parser: node check.js FILE...
// Every name, function and type has to be known; the table is the one that docs/deploy.md tells to make.
const fs = require("fs");
require("@kusto/language-service-next/bridge.min");
require("@kusto/language-service-next/Kusto.Language.Bridge.min");

const { Kusto } = globalThis;
const { DatabaseSymbol, TableSymbol } = Kusto.Language.Symbols;
const table = new TableSymbol.$ctor7(
  "IoTEdgeMetrics_CL",
  "(TimeGenerated: datetime, Origin: string, Namespace: string, Name: string, Value: real, Tags: string, " +
    "ResourceId: string)",
  null,
);
const database = new DatabaseSymbol.$ctor3("workspace", null, [table], false);
const globals = Kusto.Language.GlobalState.Default.WithDatabase(database);

let faults = 0;
for (const file of process.argv.slice(2)) {
  const text = fs.readFileSync(file, "utf8");
  const code = Kusto.Language.KustoCode.ParseAndAnalyze(text, globals);
  const found = code.GetDiagnostics();
  for (let index = 0; index < found.Count; index += 1) {
    const fault = found.getItem(index);
    const line = text.slice(0, fault.Start).split("\n").length;
    console.log(`${file}:${line}: ${fault.Severity}: ${fault.Message}`);
    faults += 1;
  }
}
process.exit(faults ? 1 : 0);
