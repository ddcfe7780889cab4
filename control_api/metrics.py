"""Metrics of the control API, in a registry of their own: importing this module registers nothing."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """What this process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refreshes = Counter(
            "sluicegate_control_refreshes",
            "Token refreshes by how they ended.",
            ["outcome"],
            registry=self.registry,
        )
        self.refresh_seconds = Histogram(
            "sluicegate_control_refresh_seconds", "How long exchanges took.", registry=self.registry
        )
        self.usage_polls = Counter(
            "sluicegate_control_usage_polls", "Usage polls by how they ended.", ["outcome"], registry=self.registry
        )
        self.signals = Counter("sluicegate_control_signals", "Account signals stored.", registry=self.registry)
        self.policy_pushes = Counter(
            "sluicegate_control_policy_pushes", "Policies pushed by how it ended.", ["outcome"], registry=self.registry
        )
        self.policy_version = Gauge(
            "sluicegate_control_policy_version", "Policy version in force.", registry=self.registry
        )
        self.accounts = Gauge("sluicegate_control_accounts", "Accounts by status.", ["status"], registry=self.registry)
