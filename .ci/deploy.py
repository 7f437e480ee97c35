"""What schemas cannot know of deploy/: that it agrees with itself and with the code."""

import pathlib
import re
import sys
import tomllib

import yaml

# Kinds the code can ask the API server for, as RBAC names them.
RESOURCES = {
    "ConfigMap": ("", "configmaps"),
    "EndpointSlice": ("discovery.k8s.io", "endpointslices"),
    "Event": ("events.k8s.io", "events"),
    "Namespace": ("", "namespaces"),
    "Node": ("", "nodes"),
    "Pod": ("", "pods"),
    "Service": ("", "services"),
    "ServiceCIDR": ("networking.k8s.io", "servicecidrs"),
}


def watched(source: pathlib.Path) -> set[tuple[str, str]]:
    """The resources whose kinds are imported where objects are watched."""
    text = "\n".join(path.read_text() for path in sorted(source.rglob("*.rs")) if path.name != "tests.rs")
    imports = " ".join(re.findall(r"use k8s_openapi::api::[^;]*;", text))
    return {resource for kind, resource in RESOURCES.items() if re.search(rf"\b{kind}\b", imports)}


def main() -> int:
    errors = []

    objects = {}
    for document in yaml.safe_load_all(pathlib.Path("deploy/portico.yaml").read_text()):
        objects[document["kind"]] = document

    granted = {}
    for rule in objects["ClusterRole"]["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted[group, resource] = set(rule["verbs"])
    needed = watched(pathlib.Path("lb/src/source"))
    verbs_of = {resource: {"list", "watch"} for resource in needed}
    if "Recorder" in pathlib.Path("lb/src/daemon/serve/events.rs").read_text():
        verbs_of[RESOURCES["Event"]] = {"create", "patch"}
    for group, resource in sorted(verbs_of.keys() - granted.keys()):
        errors.append(f"the code asks for {resource} ({group or 'core'}), which the ClusterRole does not grant")
    for group, resource in sorted(granted.keys() - verbs_of.keys()):
        errors.append(f"the ClusterRole grants {resource} ({group or 'core'}), which the code does not ask for")
    for of, verbs in granted.items():
        if verbs != verbs_of.get(of, verbs):
            errors.append(f"the ClusterRole's verbs on {of[1]} are {sorted(verbs)}, not {sorted(verbs_of[of])}")

    pod = objects["DaemonSet"]["spec"]["template"]
    if pod["metadata"]["labels"] != objects["DaemonSet"]["spec"]["selector"]["matchLabels"]:
        errors.append("the DaemonSet does not select its own pods")
    if pod["spec"]["serviceAccountName"] != objects["ServiceAccount"]["metadata"]["name"]:
        errors.append("the DaemonSet does not use the ServiceAccount")

    workspace = tomllib.loads(pathlib.Path("Cargo.toml").read_text())["workspace"]
    version = workspace["package"]["version"]
    image = pod["spec"]["containers"][0]["image"]
    if image != f"portico:{version}":
        errors.append(f"the DaemonSet runs {image}, the workspace is at {version}")

    containerfile = pathlib.Path("deploy/Containerfile").read_text()
    copied = set(re.findall(r"^COPY (\S+) ", containerfile, re.MULTILINE))
    for member in workspace["members"]:
        if member.split("/")[0] not in copied:
            errors.append(f"deploy/Containerfile does not copy {member}, a member of the workspace")

    for error in errors:
        print(f"deploy: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
