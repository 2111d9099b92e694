"""Mistakes in the template, which the scenarios must notice.

A mistake changes the untransformed SAM template in place. The names of mistakes are
claims about the deployed stack.
"""

from collections.abc import Callable
from dataclasses import dataclass

MISTAKES: dict[str, "Mistake"] = {}


@dataclass
class Mistake:
    """A change of the template, and the scenarios that meet it."""

    make: Callable[[dict], None]
    scenarios: tuple[str, ...]


def mistake(*scenarios: str):
    """Registers a mistake with the scenarios that meet it."""

    def register(make):
        MISTAKES[make.__name__] = Mistake(make, scenarios)
        return make

    return register


def properties(sam: dict, resource: str) -> dict:
    return sam["Resources"][resource]["Properties"]


def statements(sam: dict, role: str) -> list[dict]:
    return properties(sam, role)["Policies"][0]["PolicyDocument"]["Statement"]


def statement(sam: dict, role: str, sid: str) -> dict:
    """Returns the statement of a role with this `Sid`."""
    (found,) = [entry for entry in statements(sam, role) if entry.get("Sid") == sid]
    return found


def event(sam: dict, name: str) -> dict:
    return properties(sam, "DrainFunction")["Events"][name]["Properties"]


def variables(sam: dict) -> dict:
    return sam["Globals"]["Function"]["Environment"]["Variables"]


def index(sam: dict, name: str) -> dict:
    (found,) = [entry for entry in properties(sam, "Jobs")["GlobalSecondaryIndexes"] if entry["IndexName"] == name]
    return found


def swap(entries: dict, first: str, second: str):
    entries[first], entries[second] = entries[second], entries[first]


# Permissions.


@mistake("a_list_reads_its_query")
def the_api_may_not_query_the_index_of_lists(sam):
    resources = statement(sam, "ApiRole", "ListJobs")["Resource"]
    resources[:] = [entry for entry in resources if "index/listed" not in str(entry)]


@mistake("a_list_reads_its_query")
def the_api_may_not_read_several_rows(sam):
    statement(sam, "ApiRole", "ReadAndWriteJobs")["Action"].remove("dynamodb:BatchGetItem")


@mistake("a_background_response_is_cancelled_and_deleted")
def the_api_may_not_delete_rows(sam):
    statements(sam, "ApiRole").remove(statement(sam, "ApiRole", "DeleteJobs"))


@mistake("a_large_request_waits_in_the_bucket")
def objects_are_granted_on_the_bucket_instead_of_its_content(sam):
    statement(sam, "ApiRole", "ReadAndWriteBodies")["Resource"] = {"Fn::GetAtt": ["Bodies", "Arn"]}


@mistake("tokens_are_counted_by_bedrock")
def the_api_may_not_count_tokens(sam):
    statements(sam, "ApiRole").remove(statement(sam, "ApiRole", "CountTokens"))


@mistake("converse_is_answered_by_a_cross_region_profile")
def profiles_are_granted_without_the_account(sam):
    resources = statement(sam, "ApiRole", "InvokeModels")["Resource"]
    for entry in resources:
        if ":inference-profile/" in entry["Fn::Sub"]:
            entry["Fn::Sub"] = entry["Fn::Sub"].replace("${AWS::AccountId}", "")


@mistake("a_guardrail_is_applied")
def guardrails_are_granted_without_the_account(sam):
    entry = statement(sam, "ApiRole", "ApplyGuardrails")["Resource"]
    entry["Fn::Sub"] = entry["Fn::Sub"].replace("${AWS::AccountId}", "")


@mistake("a_background_response_ends")
def the_drain_may_not_find_waiting_jobs(sam):
    resources = statement(sam, "DrainRole", "FindJobs")["Resource"]
    resources[:] = [entry for entry in resources if "index/waiting" not in str(entry)]


@mistake("a_job_that_its_model_refuses_becomes_a_dead_letter")
def the_drain_may_not_send_dead_letters(sam):
    statements(sam, "DrainRole").remove(statement(sam, "DrainRole", "SendDeadLetters"))


@mistake("a_burst_becomes_jobs_that_end")
def the_api_may_not_send_jobs(sam):
    statement(sam, "ApiRole", "SendJobs")["Resource"] = [{"Fn::GetAtt": ["WebhookQueue", "Arn"]}]


@mistake("a_large_request_waits_in_the_bucket")
def the_bucket_denies_all_requests(sam):
    policy = properties(sam, "BodiesOnlyByTls")["PolicyDocument"]["Statement"][0]
    del policy["Condition"]


@mistake("a_large_request_waits_in_the_bucket")
def the_bucket_denies_requests_with_tls(sam):
    policy = properties(sam, "BodiesOnlyByTls")["PolicyDocument"]["Statement"][0]
    policy["Condition"] = {"Bool": {"aws:SecureTransport": "true"}}


# Tables and queues.


@mistake("a_background_response_ends")
def a_key_attribute_has_the_wrong_type(sam):
    for attribute in properties(sam, "Jobs")["AttributeDefinitions"]:
        if attribute["AttributeName"] == "place_ms":
            attribute["AttributeType"] = "S"


@mistake("a_list_reads_its_query")
def an_index_has_the_wrong_key(sam):
    index(sam, "listed")["KeySchema"][0]["AttributeName"] = "waiting"


@mistake("a_background_response_ends")
def the_drain_reads_the_wrong_queue(sam):
    event(sam, "Jobs")["Queue"] = {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}


@mistake("a_job_that_has_lost_its_message_is_sent_again")
def the_sweep_has_no_input(sam):
    event(sam, "Sweep")["Input"] = "{}"


# Variables.


@mistake("a_background_response_ends")
def the_variable_of_the_queue_is_its_arn(sam):
    variables(sam)["SPILLWAY_QUEUE_URL"] = {"Fn::GetAtt": ["JobsQueue", "Arn"]}


@mistake("a_large_request_waits_in_the_bucket")
def the_variable_of_the_bucket_is_its_arn(sam):
    variables(sam)["SPILLWAY_BUCKET"] = {"Fn::GetAtt": ["Bodies", "Arn"]}


@mistake("a_background_response_ends")
def ledger_and_jobs_table_are_swapped(sam):
    swap(variables(sam), "SPILLWAY_LEDGER_TABLE", "SPILLWAY_JOBS_TABLE")


@mistake("a_job_is_sent_to_the_queue_of_jobs")
def the_queues_of_jobs_and_webhooks_are_swapped(sam):
    swap(variables(sam), "SPILLWAY_QUEUE_URL", "SPILLWAY_WEBHOOK_QUEUE_URL")


@mistake("a_job_that_its_model_refuses_becomes_a_dead_letter")
def dead_letters_go_to_the_queue_of_webhooks(sam):
    variables(sam)["SPILLWAY_DEAD_LETTER_QUEUE_URL"] = {"Ref": "WebhookQueue"}


@mistake("a_chat_completion_is_answered")
def a_path_prefix_is_the_default(sam):
    sam["Parameters"]["PathPrefix"]["Default"] = "/llm"


# The doors.


@mistake("a_chat_completion_is_answered")
def only_the_root_is_routed(sam):
    del properties(sam, "ApiFunction")["Events"]["Everything"]


@mistake("a_stream_arrives_while_the_model_speaks")
def responses_are_buffered(sam):
    for route in properties(sam, "ApiFunction")["Events"].values():
        del route["Properties"]["ResponseTransferMode"]


@mistake("the_function_url_answers_a_call_and_a_stream")
def the_function_url_is_buffered(sam):
    properties(sam, "ApiFunctionUrl")["InvokeMode"] = "BUFFERED"


@mistake("a_background_response_ends")
def both_functions_have_the_code_of_the_api(sam):
    properties(sam, "DrainFunction")["CodeUri"] = "../functions/api"
    sam["Resources"]["DrainFunction"]["Metadata"]["BuildProperties"]["Binary"] = "api"


@mistake("the_end_of_a_job_is_sent_through_the_queue_of_webhooks")
def nothing_reads_the_queue_of_webhooks(sam):
    del properties(sam, "DrainFunction")["Events"]["Webhooks"]
