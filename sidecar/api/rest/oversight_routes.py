"""The table of the operations of oversight: versions of definitions, what is owed, bulk jobs."""

from __future__ import annotations

from sidecar.api.rest import bulk, debt, models, oversight_models, reruns, services, versions
from sidecar.api.rest.routes import CURSOR, LIMIT, Parameter, Route
from sidecar.ports.bulk import BulkResult

OLDER_THAN = Parameter(
    "older_than", "What counts as overdue: `30m`, `2h`.", {"type": "string", "default": "1h"}
)
SERVICE = Parameter("service", "Only entries of this service.", {"type": "string"})

RESULT = Parameter(
    "result", "Only workflows with this result.", {"enum": [str(one) for one in BulkResult]}
)

_VERSION = "/v1/definitions/{name}/versions/{version}"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/definitions/{name}/versions",
        versions.list_,
        "listVersions",
        "List the versions of a definition, newest first, with their open workflows",
        {200: oversight_models.VersionPage},
        problems=(404, 422),
        query=(CURSOR, LIMIT),
    ),
    Route(
        "POST",
        f"{_VERSION}/deprecate",
        versions.deprecate,
        "deprecateVersion",
        "Tell whoever starts a version that it is deprecated; it still starts",
        {200: models.DefinitionLine},
        problems=(404, 422),
    ),
    Route(
        "POST",
        f"{_VERSION}/retire",
        versions.retire,
        "retireVersion",
        "Refuse starts of a version; workflows that run it go on",
        {200: models.DefinitionLine},
        problems=(404, 422),
    ),
    Route(
        "POST",
        f"{_VERSION}/restore",
        versions.restore,
        "restoreVersion",
        "Take back that a version is deprecated or retired",
        {200: models.DefinitionLine},
        problems=(404, 422),
    ),
    Route(
        "DELETE",
        _VERSION,
        versions.delete,
        "deleteVersion",
        "Delete a retired version to which no workflow refers, open or ended",
        {200: oversight_models.DeletedBody},
        problems=(404, 409, 422),
    ),
    Route(
        "GET",
        "/v1/services",
        services.list_,
        "listServices",
        "List services by name, with their live sidecars and the actions that they offer",
        {200: oversight_models.ServicePage},
        problems=(422,),
        query=(CURSOR, LIMIT),
    ),
    Route(
        "GET",
        "/v1/debt",
        debt.get,
        "getDebt",
        "Read which effects are owed their undoing: by service, and one by one",
        {200: oversight_models.DebtBody},
        problems=(422,),
        query=(OLDER_THAN, SERVICE, CURSOR, LIMIT),
    ),
    Route(
        "POST",
        "/v1/workflows/bulk",
        bulk.begin,
        "beginBulk",
        "Do something to many workflows, or tell (`dry_run`) to which it would be done",
        {202: oversight_models.JobBody, 200: oversight_models.SelectionBody},
        problems=(400, 413, 415, 422),
        body=oversight_models.BulkBody,
    ),
    Route(
        "GET",
        "/v1/bulk",
        bulk.list_,
        "listBulk",
        "List bulk jobs, newest first",
        {200: oversight_models.JobList},
        problems=(422,),
        query=(CURSOR, LIMIT),
    ),
    Route(
        "GET",
        "/v1/bulk/{job}",
        bulk.get,
        "getBulk",
        "Read a bulk job and what became of each of its workflows",
        {200: oversight_models.JobPage},
        problems=(404, 422),
        query=(RESULT, CURSOR, LIMIT),
    ),
    Route(
        "POST",
        "/v1/bulk/{job}/stop",
        bulk.stop,
        "stopBulk",
        "Stop a bulk job: workflows that had no turn yet get none",
        {202: oversight_models.JobBody},
        problems=(404,),
    ),
    Route(
        "POST",
        "/v1/workflows/{id}/rerun",
        reruns.rerun,
        "rerunWorkflow",
        "Run a workflow that has ended again, as a new one with the same input",
        {201: models.StartedBody, 200: models.StartedBody},
        problems=(400, 404, 409, 413, 415, 422),
        body=oversight_models.RerunBody,
    ),
)
