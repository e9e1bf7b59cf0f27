"""Files for servers of others: what a format's `deployment` says, put in place, and the manifests that they share."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kerasmodels import storage
from kerasmodels.errors import UsageError, storage_error, unknown_name
from kerasmodels.export import formats as table
from kerasmodels.export.place import Place


def write(out: str | Path, server: str) -> list[Path]:
    """Write what a server needs to serve the models of an export folder.

    Args:
        out: the folder, with its export.json.
        server: `serving` (TensorFlow Serving) or `triton`.

    Returns:
        The files; the last two are the docker-compose file and the Kubernetes manifest.

    Raises:
        UsageError: no such server, or no verified artifact that it can serve.
        StorageError: they cannot be written there.
    """
    out = Path(out)
    if server not in table.SERVERS:
        raise unknown_name("server", server, table.SERVERS)
    form = next(form for form in table.FORMATS if form.server == server)
    models = {}
    for name, model in Place(out).read_index().items():
        fits = [a for a in model["artifacts"] if a["format"] == form.name and a["verified"]]
        if fits:
            models[name] = {**model, "artifacts": fits}
    if not models:
        raise UsageError(f"expected {form.name} artifacts in {out} for {server}. Received none that are verified.")
    written = []
    for name, content in form.exporter.deployment(out, models).items():
        target = out / name
        if isinstance(content, str):
            storage.write_text(target, content)
        elif not target.exists():
            try:
                with open(content, "rb") as source:
                    storage.write_atomic(target, partial(shutil.copyfileobj, source))
            except OSError as error:
                raise storage_error(target, error) from error
        written.append(target)
    return written


def batches_alike(inputs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether requests cannot differ in anything but the batch, so that a server may put any of them together."""
    free = {size for spec in inputs for size in spec["shape"] if isinstance(size, str)}
    return free == {"batch"} and all(spec["kind"] != "image" for spec in inputs)


@dataclass(frozen=True)
class Server:
    """One container.

    Args:
        name: of the service.
        image: of the container.
        folder: of the models, relative to the export folder.
        mounted: where it finds that folder.
        command, arguments: what it runs.
        ports: name -> number; one is called http.
        ready: the HTTP path that answers 200 when all is loaded.
        notes: sentences for whoever reads the files.
    """

    name: str
    image: str
    folder: str
    mounted: str
    command: Sequence[str]
    arguments: Sequence[str]
    ports: Mapping[str, int]
    ready: str
    notes: Sequence[str]


def manifests(server: str, container: Server) -> dict[str, str]:
    """A docker-compose file and a Kubernetes manifest, by name."""
    return {
        f"docker-compose.{server}.yaml": _compose(container),
        f"kubernetes.{server}.yaml": _kubernetes(container),
    }


def _compose(c: Server) -> str:
    command = [*c.command, *c.arguments]
    ports = "\n".join(f'      - "127.0.0.1:{port}:{port}"' for port in c.ports.values())
    # The images have bash, and no curl.
    probe = f"exec 3<>/dev/tcp/127.0.0.1/{c.ports['http']}; printf 'GET {c.ready} HTTP/1.0\\r\\n\\r\\n' >&3; "
    probe += "head -1 <&3 | grep -q 200"
    return f"""\
{_notes(c)}# docker compose -f this-file up
services:
  {c.name}:
    image: {json.dumps(c.image)}
    command: {json.dumps(command)}
    volumes:
      - ./{c.folder}:{c.mounted}:ro
    ports:
{ports}
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 4g
    cpus: 2
    stop_grace_period: 40s
    restart: unless-stopped
    healthcheck:
      test: ["CMD", "bash", "-c", {json.dumps(probe.replace("$", "$$"))}]
      interval: 10s
      timeout: 5s
      retries: 3
      start_period: 60s
"""


def _kubernetes(c: Server) -> str:
    image = c.image if "$" not in c.image else f"IMAGE  # {c.image.partition(':?')[2].rstrip('}')}"
    container_ports = "\n".join(f"            - {{name: {k}, containerPort: {v}}}" for k, v in c.ports.items())
    service_ports = "\n".join(f"    - {{name: {k}, port: {v}, targetPort: {k}}}" for k, v in c.ports.items())
    command = f"          command: {json.dumps(list(c.command))}\n" if c.command else ""
    return f"""\
{_notes(c)}# The folder {c.folder} of the export belongs on the volume that the claim "models" is bound to.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {c.name}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: {c.name}}}
  strategy:
    rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata:
      labels: {{app: {c.name}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 60
      containers:
        - name: {c.name}
          image: {image}
{command}          args: {json.dumps(list(c.arguments))}
          ports:
{container_ports}
          startupProbe:
            httpGet: {{path: {c.ready}, port: http}}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet: {{path: {c.ready}, port: http}}
            periodSeconds: 5
          livenessProbe:
            tcpSocket: {{port: http}}
            periodSeconds: 10
            failureThreshold: 3
          lifecycle:
            preStop:
              # Until no more requests are sent here.
              exec: {{command: [sleep, "5"]}}
          resources:
            requests: {{cpu: "1", memory: 1Gi}}
            limits: {{cpu: "2", memory: 4Gi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: models, mountPath: {c.mounted}, subPath: {c.folder}, readOnly: true}}
            - {{name: scratch, mountPath: /tmp}}
      volumes:
        - name: models
          persistentVolumeClaim: {{claimName: models, readOnly: true}}
        - name: scratch
          emptyDir: {{}}
---
apiVersion: v1
kind: Service
metadata:
  name: {c.name}
spec:
  selector: {{app: {c.name}}}
  ports:
{service_ports}
"""


def _notes(c: Server) -> str:
    return "".join(f"# {note}\n" for note in c.notes)
