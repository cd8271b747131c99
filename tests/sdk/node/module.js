// Microsoft's Node SDK as a module of local-edge. Prints one JSON object a line about what happened; the test
// that starts it acts on them. Ends when its standard input does.
'use strict';

const { ModuleClient, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const report = (twin, patch) =>
  new Promise((resolve) => twin.properties.reported.update(patch, (error) => resolve(error ? String(error) : null)));

async function main() {
  const client = process.env.EdgeHubConnectionString
    ? ModuleClient.fromConnectionString(process.env.EdgeHubConnectionString, Mqtt)
    : await ModuleClient.fromEnvironment(Mqtt);
  if (process.env.EdgeHubConnectionString) {
    const ca = require('fs').readFileSync(process.env.EdgeModuleCACertificateFile, 'utf8');
    await client.setOptions({ ca });
  }
  await client.open();
  client.onMethod('echo', (request, response) => {
    response.send(200, { echo: request.payload }, () => {});
  });
  client.on('inputMessage', (input, message) => {
    say({ event: 'input', input, body: JSON.parse(message.getBytes().toString('utf8')) });
    client.complete(message, () => {});
  });
  const twin = await client.getTwin();
  say({ event: 'twin', desired: twin.properties.desired });
  let first = true;
  twin.on('properties.desired', (patch) => {
    // The SDK calls this once with the whole document.
    if (!first) say({ event: 'patch', patch });
    first = false;
  });
  say({ event: 'good report', error: await report(twin, { sdk: 'node', config: { desiredVersion: 1 } }) });
  say({ event: 'bad report', error: await report(twin, { 'with.dot': 1 }) });
  const message = new Message(JSON.stringify({ from: 'node' }));
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  await client.sendOutputEvent('out', message);
  say({ event: 'ready' });
  process.stdin.on('end', async () => {
    await client.close();
    process.exit(0);
  });
  process.stdin.resume();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
