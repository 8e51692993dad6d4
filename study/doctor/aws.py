"""What a cluster file on AWS needs before `ray up`: a security group and two roles. Makes and checks them.
Knows boto3 (imported when used) and the cluster file; does not know Ray. Ray would make these itself, but its group
lets the whole world in on port 22, and its workers get no role, so they could not write to the bucket."""

import importlib.util
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from study.design.errors import StudyError
from study.doctor.check import Check, guarded, ok, skipped, verdict
from study.doctor.cluster_file import PLACEHOLDER, SSH, Config, is_own, node_types, ranges_of, ssh_ranges, stated_rules

WITHIN = "-1"  # every protocol and port, between members of the group
MISSING_BOTO = "boto3 is not installed"
INSTALL_BOTO = "pip install -c constraints.txt 'gnc-study[cluster]'."
RIGHTS = json.loads(Path(__file__).with_name("aws_rights.json").read_text(encoding="utf-8"))


def prepare(config: Config) -> tuple[str, list[str]]:
    """Make or correct the security group and the roles that the file names; the group's id and what was done.
    Running it again changes nothing. Raises StudyError where the file does not state a range or a bucket."""
    if is_own(config):
        raise StudyError("cluster file must be for AWS, got own machines. They need no group and no roles.")
    done: list[str] = []
    rules, bucket = stated_rules(config), _bucket(config)
    group_id = _prepare_group(config, rules, done)
    arn, (worker_profiles, head_profile) = f"arn:aws:s3:::{bucket}", _profiles(config)
    in_bucket = [{"Effect": "Allow", "Action": RIGHTS["bucket"], "Resource": [arn, f"{arn}/*"]}]
    for profile in worker_profiles:
        _prepare_role(config, profile, in_bucket, done)
    roles = [_client("iam", config).get_role(RoleName=name)["Role"]["Arn"] for name in worker_profiles]
    # the autoscaler on the head starts and ends machines, and hands the workers their role and no other
    passed = [{"Effect": "Allow", "Action": "iam:PassRole", "Resource": roles}] if roles else []
    _prepare_role(config, head_profile, [*in_bucket, *RIGHTS["head"], *passed], done)
    return group_id, done


def check_account(config: Config) -> list[Check]:
    """Whether the account has what the file names; skipped without boto3 or credentials."""
    if importlib.util.find_spec("boto3") is None:
        return [skipped("aws", f"{MISSING_BOTO}: {INSTALL_BOTO}")]
    cure = "Set up credentials: aws configure, or AWS_PROFILE."
    credentials = guarded("aws", lambda: _check_credentials(config), cure)
    if credentials.state != "ok":
        return [credentials]
    cure = "Run gnc prepare on the cluster file, which makes it."
    group = guarded("aws group", lambda: _check_group(config), cure)
    return [credentials, group, guarded("aws roles", lambda: _check_profiles(config), cure)]


def _check_credentials(config: Config) -> Check:
    _client("ec2", config).describe_availability_zones()  # a region that does not answer is no region of this account
    account = _client("sts", config).get_caller_identity()["Account"]
    return ok("aws", f"account {account}, region {config['provider'].get('region')}")


def _check_group(config: Config) -> Check:
    ids = sorted({g for t in node_types(config).values() for g in t["node_config"].get("SecurityGroupIds", [])})
    if any(PLACEHOLDER in group for group in ids):
        raise LookupError(f"SecurityGroupIds are {ids}, which no group has")
    wrong = []
    for group in _client("ec2", config).describe_security_groups(GroupIds=ids)["SecurityGroups"]:
        wrong += [f"{group['GroupId']} {problem}" for problem in _unstated_openings(group, ids, config)]
    cure = "Run gnc prepare on the cluster file, which closes what the file does not state."
    return verdict("aws group", wrong, f"{', '.join(ids)} lets in SSH from the stated range, and its machines", cure)


def _unstated_openings(group: Config, ids: list[str], config: Config) -> list[str]:
    stated, problems = ssh_ranges(config), []
    for rule in group["IpPermissions"]:
        if outside := [pair["GroupId"] for pair in rule.get("UserIdGroupPairs", []) if pair["GroupId"] not in ids]:
            problems.append(f"lets in group {outside[0]}")
        ports = (rule.get("IpProtocol"), rule.get("FromPort"), rule.get("ToPort"))
        for cidr in ranges_of(rule):
            if ports != SSH or cidr not in stated:
                problems.append(f"opens {ports[0]} {ports[1]} to {ports[2]} to {cidr}")
    return problems


def _check_profiles(config: Config) -> Check:
    workers, head = _profiles(config)
    iam = _client("iam", config)
    for name in (head, *workers):
        if not iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
            raise LookupError(f"instance profile {name} has no role")
    return ok("aws roles", f"instance profiles {', '.join((head, *workers))} are there")


def _bucket(config: Config) -> str:
    results = str(config.get("metadata", {}).get("results"))
    parts = urlsplit(results)
    if parts.scheme != "s3" or not parts.netloc or PLACEHOLDER in results:
        cure = "Write e.g. s3://my-bucket/gnc."
        raise StudyError(f"metadata.results must be the S3 URI that results go to, got {results!r}. {cure}")
    return parts.netloc


def _profiles(config: Config) -> tuple[list[str], str]:
    named = {}
    for name, node_type in node_types(config).items():
        named[name] = node_type["node_config"].get("IamInstanceProfile", {}).get("Name")
        if not named[name]:
            cure = f"Write IamInstanceProfile: {{Name: gnc-{name}}}."
            raise StudyError(f"node type {name} must name an instance profile, got none. {cure}")
    head = named[str(config["head_node_type"])]
    return sorted(set(named.values()) - {head}), head


def _prepare_group(config: Config, rules: list[Config], done: list[str]) -> str:
    ec2 = _client("ec2", config)
    name = config["provider"]["security_group"].get("GroupName", config.get("cluster_name", "gnc"))
    vpc = _vpc(ec2, config)
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    group_id: str = found[0]["GroupId"] if found else ""
    if not found:
        description = "SSH from the range stated in the cluster file; everything between the cluster's machines"
        group_id = ec2.create_security_group(GroupName=name, Description=description, VpcId=vpc)["GroupId"]
        done.append(f"made security group {name} ({group_id}) in {vpc}")
    wanted = [*rules, {"IpProtocol": WITHIN, "UserIdGroupPairs": [{"GroupId": group_id}]}]
    _set_rules(ec2, group_id, found[0]["IpPermissions"] if found else [], wanted, done)
    return group_id


def _set_rules(ec2: Any, group_id: str, present: list[Config], wanted: list[Config], done: list[str]) -> None:
    """Leave exactly the wanted rules: whatever else is open is closed first."""
    if sorted(map(_comparable, present)) == sorted(map(_comparable, wanted)):
        return
    if present:
        ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=present)
        done.append(f"closed what {group_id} had open")
    ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=wanted)
    ranges = ", ".join(cidr for rule in wanted for cidr in ranges_of(rule))
    done.append(f"opened port {SSH[1]} of {group_id} to {ranges}")


def _comparable(rule: Config) -> tuple[str, ...]:
    """A rule as something to compare: AWS answers with more keys than were sent."""
    groups = sorted(pair["GroupId"] for pair in rule.get("UserIdGroupPairs", []))
    ports = [str(rule.get(name, "")) for name in ("FromPort", "ToPort")] if rule["IpProtocol"] != WITHIN else ["", ""]
    return (rule["IpProtocol"], *ports, *sorted(ranges_of(rule)), *groups)


def _vpc(ec2: Any, config: Config) -> str:
    """The VPC of the subnets that the file names, else the region's default."""
    subnets = sorted({s for t in node_types(config).values() for s in t["node_config"].get("SubnetIds", [])})
    if subnets:
        return str(ec2.describe_subnets(SubnetIds=subnets)["Subnets"][0]["VpcId"])
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        region, cure = config["provider"].get("region"), "Name SubnetIds in every node type."
        raise StudyError(f"region must have a default VPC, got {region!r} without one. {cure}")
    return str(found[0]["VpcId"])


def _prepare_role(config: Config, name: str, statements: list[Config], done: list[str]) -> None:
    iam = _client("iam", config)
    missing = iam.exceptions.NoSuchEntityException
    try:
        iam.get_role(RoleName=name)
    except missing:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(RIGHTS["trust"]))
        done.append(f"made role {name}")
    policy = {"Version": "2012-10-17", "Statement": statements}
    iam.put_role_policy(RoleName=name, PolicyName="gnc", PolicyDocument=json.dumps(policy))
    try:
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    except missing:
        profile = iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        done.append(f"made instance profile {name}")
    if not profile["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def _client(service: str, config: Config) -> Any:
    try:
        import boto3
    except ImportError:
        raise StudyError(f"{service} must be reached through boto3, got none: {MISSING_BOTO}. {INSTALL_BOTO}") from None
    return boto3.client(service, region_name=config["provider"].get("region"))
