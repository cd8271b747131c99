// Microsoft's Node SDK as a module of local-edge. Prints one JSON object a line about what happened; the test
// that starts it acts on them, and kills it in the end.
'use strict';

const { ModuleClient, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const report = (twin, patch) =>
  new Promise((resolve) => twin.properties.reported.update(patch, (error) => resolve(error ? String(error) : null)));

async function main() {
  // By the connection string where it is there, otherwise by the IOTEDGE_ variables.
  const client = await ModuleClient.fromEnvironment(Mqtt);
  await client.open();
  client.onMethod('echo', (request, response) => response.send(200, { echo: request.payload }, () => {}));
  client.on('inputMessage', (input, message) => {
    say({ event: 'input', input, body: JSON.parse(message.getBytes().toString('utf8')) });
    client.complete(message, () => {});
  });
  const twin = await client.getTwin();
  say({ event: 'twin', desired: twin.properties.desired });
  const known = twin.properties.desired.$version;
  twin.on('properties.desired', async (patch) => {
    // The SDK calls this once with the whole document.
    if (patch.$version === known) return;
    say({ event: 'patch', patch });
    await report(twin, { config: { desiredVersion: patch.$version, status: 'applied' } });
  });
  say({ event: 'good report', error: await report(twin, { sdk: 'node' }) });
  say({ event: 'bad report', error: await report(twin, { 'with.dot': 1 }) });
  const message = new Message(JSON.stringify({ from: 'node' }));
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  await client.sendOutputEvent('out', message);
  say({ event: 'ready' });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
