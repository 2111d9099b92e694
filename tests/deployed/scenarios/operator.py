"""The operator's command on the deployed tables and queues."""

from processes import wait_until
from scenario import scenario

# Longer than the functions keep an entry of the registry.
REGISTRY_CACHE_S = 60


@scenario
def the_command_reads_the_deployed_entries(broker):
    """The command lists and shows what it has written, and reads the ledger and the dead letters."""
    assert "roomy" in broker.command("tenants", "list")
    assert "gpt-5" in broker.command("models", "list")
    assert "roomy" in broker.command("tenants", "show", "roomy")
    assert "requests" in broker.command("quota", "roomy")
    broker.command("keys", "list", "roomy")
    broker.command("callers", "list")
    broker.command("jobs", "dlq", "list")


@scenario
def a_revoked_key_is_refused(broker):
    """A key that the command revokes is refused when the functions read the registry again."""
    key = broker.command("keys", "create", "roomy").strip()
    broker.call("GET", "/v1/models", Authorization=f"Bearer {key}").expect(200)
    broker.command("keys", "revoke", key)
    yield

    def is_refused():
        return broker.call("GET", "/v1/models", Authorization=f"Bearer {key}").status == 401

    wait_until(is_refused, REGISTRY_CACHE_S, "the key is refused")
