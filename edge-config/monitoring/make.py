#!/usr/bin/env python3
"""Writes workbook.json and alerts.json from the .kql files; `--check` says whether they are up to date."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent

# Title, file, how it is shown.
WORKBOOK = [
    ("Flows that are down: which, since when, why", "flows-down", "table"),
    ("Modules", "modules", "table"),
    ("Running, percent of each hour", "flow-history", "linechart"),
    ("What arrives, kilobits a second", "input-rate", "linechart"),
    ("Clients", "clients", "linechart"),
    ("What viewers of the player pages see", "viewers", "table"),
    ("Frames that slow clients and targets did not get", "frames-lost", "table"),
    ("Is the recording safe: what was lost, what waits, until when", "recordings-safe", "table"),
]

# File, severity (0 critical to 4 verbose), how often, over which time, what tells alerts apart, text. One whose time is
# longer than a day stays until somebody closes it, and tells once a day: that a module is silent for so long that it
# has left the window is not that it is back.
ALERTS = [
    ("alert-flow-down", 1, "PT5M", "PT10M", ["Device", "Module", "Flow"], "A flow is not running"),
    ("alert-module-silent", 1, "PT15M", "P2D", ["Device", "Module"], "A module sends no metrics"),
    ("alert-module-restarts", 2, "PT15M", "PT1H", ["Device", "Module"], "A module restarts again and again"),
    ("alert-recordings-unsafe", 1, "PT15M", "PT30M", ["Device", "Module"], "Recordings are lost, or wait too long"),
    ("alert-frames-lost", 3, "PT15M", "PT30M", ["Device", "Flow", "Output"], "An output loses frames"),
]


def query(name):
    return (HERE / f"{name}.kql").read_text()


def picker():
    """Which Log Analytics workspace the queries are for."""
    kind = "microsoft.operationalinsights/workspaces"
    parameter = {
        "id": "6f2a8a3e-6a2c-4c59-9a54-0d7f3f2f6b11",
        "version": "KqlParameterItem/1.0",
        "name": "Workspace",
        "type": 5,
        "isRequired": True,
        "query": f"resources | where type == '{kind}' | project id",
        "crossComponentResources": ["value::all"],
        "queryType": 1,
        "resourceType": "microsoft.resourcegraph/resources",
        "typeSettings": {"resourceTypeFilter": {kind: True}, "additionalResourceOptions": []},
        "value": None,
    }
    content = {
        "version": "KqlParameterItem/1.0",
        "parameters": [parameter],
        "style": "pills",
        "queryType": 0,
        "resourceType": kind,
    }
    return {"type": 9, "name": "workspace", "content": content}


def workbook():
    items = [
        {
            "type": 1,
            "name": "title",
            "content": {
                "json": "# av-services\n\nWhich camera is down, since when, and why. The whole sentence, with hosts and"
                " paths, is in the module twin (`reported.flows.FLOW`)."
            },
        },
        picker(),
    ]
    for title, name, shown in WORKBOOK:
        items.append(
            {
                "type": 3,
                "name": name,
                "content": {
                    "version": "KqlItem/1.0",
                    "query": query(name),
                    "size": 0,
                    "title": title,
                    "queryType": 0,
                    "resourceType": "microsoft.operationalinsights/workspaces",
                    "crossComponentResources": ["{Workspace}"],
                    "visualization": shown,
                },
            }
        )
    return {
        "version": "Notebook/1.0",
        "items": items,
        "$schema": "https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json",
    }


def alerts():
    resources = []
    for name, severity, every, window, dimensions, text in ALERTS:
        # No window is longer than a day, what its query looks at can be.
        stays = window == "P2D"
        lasting = {"windowSize": "P1D", "overrideQueryTimeRange": window, "muteActionsDuration": "P1D"}
        resources.append(
            {
                "type": "Microsoft.Insights/scheduledQueryRules",
                "apiVersion": "2021-08-01",
                "name": f"av-{name.removeprefix('alert-')}",
                "location": "[parameters('location')]",
                "properties": {
                    "displayName": text,
                    "description": text,
                    "severity": severity,
                    "enabled": True,
                    "evaluationFrequency": every,
                    **(lasting if stays else {"windowSize": window}),
                    "scopes": ["[parameters('workspaceId')]"],
                    "autoMitigate": not stays,
                    "criteria": {
                        "allOf": [
                            {
                                "query": query(name),
                                "timeAggregation": "Count",
                                "operator": "GreaterThan",
                                "threshold": 0,
                                # The hub: there the alert is shown too.
                                "resourceIdColumn": "ResourceId",
                                "dimensions": [
                                    {"name": dimension, "operator": "Include", "values": ["*"]}
                                    for dimension in dimensions
                                ],
                                "failingPeriods": {"numberOfEvaluationPeriods": 1, "minFailingPeriodsToAlert": 1},
                            }
                        ]
                    },
                    "actions": {"actionGroups": ["[parameters('actionGroupId')]"]},
                },
            }
        )
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
            "workspaceId": {"type": "string", "metadata": {"description": "Resource id of the Log Analytics workspace"}},
            "actionGroupId": {"type": "string", "metadata": {"description": "Resource id of who is told"}},
        },
        "resources": resources,
    }


def main():
    stale = False
    for name, content in [("workbook.json", workbook()), ("alerts.json", alerts())]:
        text = json.dumps(content, indent=2) + "\n"
        if "--check" not in sys.argv:
            (HERE / name).write_text(text)
        elif (HERE / name).read_text() != text:
            print(f"{name} is not what make.py writes: run edge-config/monitoring/make.py")
            stale = True
    sys.exit(stale)


main()
