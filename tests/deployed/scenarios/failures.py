"""What fails, and where it goes."""

from processes import wait_until
from scenario import scenario

from .requests import chat, run_in_background

# The pool of the model "denied". The roles do not cover it.
DENIED = "arn:aws:bedrock:*:imported-model/denied*"


@scenario
def a_model_that_the_role_may_not_invoke_fails_its_calls(broker):
    """A call of a model that Bedrock denies is an error of the broker, and the log names the reason."""
    broker.provoked_denials.append(DENIED)
    answer = broker.call("POST", "/v1/chat/completions", chat("denied"))
    assert answer.status in (502, 503), answer
    log = wait_until(
        lambda: [line for line in broker.log() if "imported-model/denied" in line], 5, "the denial is logged"
    )
    assert "not authorized to perform: bedrock:InvokeModel" in log[0], log


@scenario
def a_job_whose_model_fails_each_attempt_becomes_a_dead_letter(broker):
    """A job that fails for good is failed, and its message is in the dead-letter queue, with the reason."""
    assert run_in_background(broker, model="failing")["status"] == "failed"
    letters = wait_until(lambda: dead_letters(broker, "roomy"), 20, "a dead letter is listed")
    assert "model_error" in letters, letters


@scenario
def a_job_whose_pool_is_denied_ends_with_the_bound_of_its_tenant(broker):
    """A job waits for a pool that fails only for as many tries as its tenant allows."""
    broker.provoked_denials.append(DENIED)
    assert run_in_background(broker, tenant="hasty", model="denied")["status"] == "failed"
    letters = wait_until(lambda: dead_letters(broker, "hasty"), 20, "a dead letter is listed")
    assert "pools_failed" in letters, letters


def dead_letters(broker, tenant: str) -> str:
    listed = broker.command("jobs", "dlq", "list")
    return listed if tenant in listed else ""
