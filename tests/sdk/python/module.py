"""Microsoft's Python SDK as a module of local-edge.

Prints one JSON object a line about what happened; the test that starts it acts on them, and kills it in the end. SENDS: a
JSON list of the messages that it sends to output `out`.
"""

import asyncio
import json
import os
import threading

from azure.iot.device import Message, MethodResponse
from azure.iot.device.aio import IoTHubModuleClient


ONE_LINE = threading.Lock()


def say(**event):
    # The SDK calls handlers on a thread of its own, and print writes a text and its line's end one after the other:
    # without the lock two events now and then share a line, and the test waits for both in vain.
    with ONE_LINE:
        print(json.dumps(event), flush=True)


async def report(client, patch):
    try:
        await client.patch_twin_reported_properties(patch)
        return None
    except Exception as error:
        return repr(error)


async def call(client, module):
    """Calls a method of another module, by HTTPS as the SDK does it."""
    asked = {
        "methodName": "echo",
        "payload": {"to": module},
        "connectTimeoutInSeconds": 5,
        "responseTimeoutInSeconds": 10,
    }
    try:
        answer = await client.invoke_method(asked, os.environ["CALLED_DEVICE"], module)
        say(event="called " + module, answer=answer, error=None)
    except Exception as error:
        say(event="called " + module, answer=None, error=repr(error))


async def main():
    # By the IOTEDGE_ variables where they are there, otherwise by the connection string.
    client = IoTHubModuleClient.create_from_edge_environment()

    async def on_method(request):
        answer = {"echo": request.payload}
        await client.send_method_response(MethodResponse.create_from_method_request(request, 200, answer))

    async def on_input(message):
        say(event="input", input=message.input_name, body=json.loads(message.data))

    async def on_patch(patch):
        say(event="patch", patch=patch)
        if "call" in patch:
            await call(client, patch["call"])
        await report(client, {"config": {"desiredVersion": patch["$version"], "status": "applied"}})

    client.on_method_request_received = on_method
    client.on_message_received = on_input
    client.on_twin_desired_properties_patch_received = on_patch
    await client.connect()
    twin = await client.get_twin()
    say(event="twin", desired=twin["desired"])
    say(event="good report", error=await report(client, {"sdk": "python"}))
    say(event="bad report", error=await report(client, {"with.dot": 1}))
    for body in json.loads(os.environ.get("SENDS", '[{"from": "python"}]')):
        message = Message(json.dumps(body), content_encoding="utf-8", content_type="application/json")
        await client.send_message_to_output(message, "out")
    say(event="ready")
    await asyncio.Event().wait()


asyncio.run(main())
