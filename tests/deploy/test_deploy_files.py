"""deploy/ and the compose example: valid by the official schemas, consistent with the server."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from helpers.pipeline_run import ROOT
from ruamel.yaml import YAML

from serving.settings import PREFIX, Settings

MANIFESTS = ROOT / "deploy" / "kubernetes" / "serving"
KSERVE = ROOT / "deploy" / "kserve" / "inference-service.yaml"
COMPOSE = ROOT / "examples" / "compose" / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
KUBERNETES = ("1.29", "1.37")
OF_KUBERNETES = [
    MANIFESTS / f"{name}.yaml"
    for name in ("deployment", "service", "autoscaler", "disruption-budget", "network-policy")
]
# These have their definitions from operators, or are no objects of a cluster.
OTHERS = {"kustomization.yaml", "service-monitor.yaml", "prometheus-adapter-values.yaml"}


def load(file: Path) -> Any:
    return YAML(typ="safe").load(file)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def deployment_container() -> dict[str, Any]:
    (container,) = load(MANIFESTS / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return container  # type: ignore[no-any-return]


def kserve_container() -> dict[str, Any]:
    (container,) = load(KSERVE)["spec"]["predictor"]["containers"]
    return container  # type: ignore[no-any-return]


def settings_of_the_pods() -> dict[str, str]:
    (generator,) = load(MANIFESTS / "kustomization.yaml")["configMapGenerator"]
    return dict(line.split("=", 1) for line in generator["literals"])


def schemas() -> Any:
    """Kubernetes' own schemas: 17,000 files, which `make test` should not have to install."""
    reason = "Kubernetes' schemas are not installed: pip install --group deploy"
    return pytest.importorskip("kubernetes_validate", reason=reason)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("file", OF_KUBERNETES, ids=lambda file: file.stem)
def test_manifests_are_valid_and_an_error_is_not(file: Path, version: str) -> None:
    manifest, kubernetes_validate = load(file), schemas()
    kubernetes_validate.validate(manifest, version, strict=True)
    broken = copy.deepcopy(manifest)
    broken["spec"]["unheardOf"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_no_manifest_is_forgotten() -> None:
    names = {file.name for file in MANIFESTS.iterdir()}
    assert names == {file.name for file in OF_KUBERNETES} | OTHERS
    listed = load(MANIFESTS / "kustomization.yaml")["resources"]
    assert sorted(listed) == sorted(file.name for file in OF_KUBERNETES)


def test_the_kserve_predictor_is_a_valid_pod() -> None:
    service = load(KSERVE)
    assert (service["apiVersion"], service["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    predictor = dict(service["spec"]["predictor"])
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
    spec = {key: value for key, value in predictor.items() if key not in own}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "intents"}, "spec": spec}
    schemas().validate(pod, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(("old", "new"), [("", ""), ("cap_drop", "cap_dropped")])
def test_the_compose_file_is_valid_and_an_error_is_not(old: str, new: str, tmp_path: Path) -> None:
    from check_jsonschema import main as check

    file = tmp_path / "compose.yml"
    file.write_text(COMPOSE.read_text("utf-8").replace(old, new) if old else COMPOSE.read_text())
    arguments = ["--builtin-schema", "vendor.compose-spec", str(file)]
    assert CliRunner().invoke(check, arguments).exit_code == (1 if old else 0)


def test_every_setting_named_in_deploy_and_docs_exists() -> None:
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    folders = [ROOT / "deploy", ROOT / "docs", COMPOSE.parent]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    texts = [file for file in files if file.suffix not in (".png", ".pyc")]
    wrong = [
        (file.name, name)
        for file in [*texts, DOCKERFILE]
        for name in re.findall(r"\bSERVING_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8"))
        if name not in known
    ]
    assert not wrong


def test_the_settings_of_the_pods_are_accepted_by_the_server() -> None:
    assert Settings.from_environment(settings_of_the_pods()).metrics_open
    kserve = {item["name"]: item["value"] for item in kserve_container()["env"]}
    Settings.from_environment(kserve)
    Settings.from_environment(load(COMPOSE)["services"]["serving"]["environment"])


def test_a_pod_has_time_to_drain_and_stop() -> None:
    pod = load(MANIFESTS / "deployment.yaml")["spec"]["template"]["spec"]
    settings = Settings.from_environment(settings_of_the_pods())
    assert pod["terminationGracePeriodSeconds"] >= settings.stop_limit
    probe = deployment_container()["readinessProbe"]
    assert settings.drain_seconds >= probe["periodSeconds"] * probe["failureThreshold"] + 2

    predictor = load(KSERVE)["spec"]["predictor"]
    environment = {item["name"]: item["value"] for item in kserve_container()["env"]}
    settings = Settings.from_environment(environment)
    assert predictor["terminationGracePeriodSeconds"] >= settings.stop_limit


def routes() -> set[tuple[str, str]]:
    """Method and path of every route of the server."""
    from serving.app import _routes

    class Anything:
        def __getattr__(self, name: str) -> object:
            async def endpoint(request: object) -> None: ...

            return endpoint

    found = _routes(Anything())  # type: ignore[arg-type]
    return {(method, route.path) for route in found for method in route.methods or ()}


def test_probed_and_scraped_paths_are_routes() -> None:
    known = routes()
    files = [MANIFESTS / "deployment.yaml", KSERVE]
    probes = [node["httpGet"] for file in files for node in nodes(load(file)) if "httpGet" in node]
    assert len(probes) == 6
    for probe in probes:
        assert ("GET", probe["path"]) in known
    (endpoint,) = load(MANIFESTS / "service-monitor.yaml")["spec"]["endpoints"]
    assert ("GET", endpoint["path"]) in known
    (checked,) = set(re.findall(r"c\.request\('GET', '([^']+)'\)", DOCKERFILE.read_text()))
    assert ("GET", checked) in known


def test_ports_are_those_the_server_listens_on() -> None:
    port = Settings().port
    (named,) = deployment_container()["ports"]
    assert named == {"name": "http", "containerPort": port}
    (of_kserve,) = kserve_container()["ports"]
    assert of_kserve["containerPort"] == port
    assert load(MANIFESTS / "service.yaml")["spec"]["ports"][0]["targetPort"] == "http"
    assert set(re.findall(r"^EXPOSE (\d+)", DOCKERFILE.read_text(), re.MULTILINE)) == {str(port)}
    (published,) = load(COMPOSE)["services"]["serving"]["ports"]
    assert published.endswith(f":{port}")


def test_the_metric_that_scales_is_one_that_the_server_counts() -> None:
    from serving.metrics import Metrics

    exposed = set(re.findall(r"^(serving_\w+) ", Metrics().text().decode(), re.MULTILINE))
    metrics = load(MANIFESTS / "autoscaler.yaml")["spec"]["metrics"]
    (name,) = [item["pods"]["metric"]["name"] for item in metrics if item["type"] == "Pods"]
    assert name in exposed
    (rule,) = load(MANIFESTS / "prometheus-adapter-values.yaml")["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")


def test_everything_selects_the_same_pods() -> None:
    template = load(MANIFESTS / "deployment.yaml")["spec"]["template"]
    label = template["metadata"]["labels"]
    spec = template["spec"]
    found = [node["matchLabels"] for node in nodes(spec) if "matchLabels" in node]
    assert found == [label] * len(spec["topologySpreadConstraints"])
    assert load(MANIFESTS / "service.yaml")["spec"]["selector"] == label
    for name in ("disruption-budget", "deployment", "service-monitor"):
        assert load(MANIFESTS / f"{name}.yaml")["spec"]["selector"]["matchLabels"] == label
    assert load(MANIFESTS / "network-policy.yaml")["spec"]["podSelector"]["matchLabels"] == label


def test_references_resolve() -> None:
    kustomization = load(MANIFESTS / "kustomization.yaml")
    container = deployment_container()
    assert (
        container["envFrom"][0]["configMapRef"]["name"]
        == (kustomization["configMapGenerator"][0]["name"])
    )
    assert container["image"] == kustomization["images"][0]["name"]
    (mount,) = container["volumeMounts"]
    tokens = settings_of_the_pods()["SERVING_TOKENS_FILE"]
    assert Path(tokens).parent == Path(mount["mountPath"])
    target = load(MANIFESTS / "autoscaler.yaml")["spec"]["scaleTargetRef"]
    deployment = load(MANIFESTS / "deployment.yaml")
    assert target["name"] == deployment["metadata"]["name"]


@pytest.mark.parametrize("container", [deployment_container(), kserve_container()])
def test_containers_are_hardened(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_users_are_the_images_user() -> None:
    users = set(re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE.read_text(), re.MULTILINE))
    assert users == {("10001", "10001")}
    for spec in (
        load(MANIFESTS / "deployment.yaml")["spec"]["template"]["spec"],
        load(KSERVE)["spec"]["predictor"],
    ):
        context = spec["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (
            True,
            10001,
            10001,
        )
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
