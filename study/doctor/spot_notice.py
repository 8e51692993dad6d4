"""`python -m study.doctor.spot_notice`: on a spot machine of AWS, drain its Ray node before the machine is taken away.
AWS announces that two minutes ahead, in the instance's metadata (IMDSv2) only; AWS_EC2_METADATA_SERVICE_ENDPOINT names
another service, as for AWS's own tools. cluster.yaml starts this on every worker. Knows nothing of a study."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime

SERVICE = "http://169.254.169.254"  # of every machine on AWS
POLL_SECONDS = 5.0  # as AWS advises
ANSWER_SECONDS = 2.0
TOKEN, TOKEN_SECONDS = "X-aws-ec2-metadata-token", 60
DRAIN_SECONDS = 60.0  # that Ray's command may take


def seconds_left(service: str) -> float | None:
    """Seconds until this machine is taken away; None if that is not announced, or if the service does not answer."""
    try:
        token = _ask(f"{service}/latest/api/token", {f"{TOKEN}-ttl-seconds": str(TOKEN_SECONDS)}, method="PUT")
        notice = _ask(f"{service}/latest/meta-data/spot/instance-action", {TOKEN: token})
        ends = datetime.fromisoformat(json.loads(notice)["time"])
    except (OSError, ValueError, KeyError):  # no notice is 404
        return None
    return max(0.0, (ends - datetime.now(UTC)).total_seconds())


def _ask(address: str, headers: dict[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(address, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return str(answer.read().decode())


def drain(seconds: float) -> bool:
    """Have Ray drain the node of this machine; False where it could not."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION",
               "--reason-message", "AWS takes this spot machine away", "--deadline-remaining-seconds", f"{seconds:.0f}"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DRAIN_SECONDS)
    except subprocess.TimeoutExpired as error:
        print(error, flush=True)
        return False
    print((done.stdout + done.stderr).strip(), flush=True)
    return done.returncode == 0


def main() -> None:
    service = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", SERVICE).rstrip("/")
    while True:
        left = seconds_left(service)
        if left is not None:
            now = f"{datetime.now(UTC):%FT%TZ}"
            print(f"{now} this machine is taken away in {left:.0f} s: draining its node", flush=True)
            if drain(left):
                return
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
