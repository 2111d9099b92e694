"""Lists, their queries and their pages."""

from scenario import scenario

from .requests import response
from .upload import create_batch, upload

MORE_THAN_A_PAGE = 22
MAX_PAGES = 50


@scenario
def a_list_reads_its_query(broker):
    """A list obeys its query, and refuses a query that it does not understand."""
    for _ in range(2):
        broker.call("POST", "/v1/responses", response()).expect(200)
    assert len(broker.call("GET", "/v1/jobs?limit=1").expect(200).json()["data"]) == 1
    for path in ("/v1/jobs", "/v1/files", "/v1/batches", "/v1/messages/batches"):
        broker.call("GET", f"{path}?limit=abc").expect(400)
    assert not broker.call("GET", "/v1/jobs?status=expired").expect(200).json()["data"]


@scenario
def the_pages_of_files_end(broker):
    """Files are listed page by page, each of them once."""
    uploaded = {upload(broker, 1)["id"] for _ in range(3)}
    assert uploaded <= set(pages(broker, "/v1/files?limit=2", "after"))


@scenario
def the_pages_of_batches_end(broker):
    """More batches than a page holds are listed page by page, each of them once."""
    created = {create_batch(broker, 1)["id"] for _ in range(MORE_THAN_A_PAGE)}
    assert created <= set(pages(broker, "/v1/batches", "after"))


@scenario
def application_profiles_are_listed_apart(broker):
    """The query `type` of the list of inference profiles is read."""
    listed = broker.call("GET", "/inference-profiles?type=APPLICATION").expect(200).json()
    kinds = {profile["type"] for profile in listed["inferenceProfileSummaries"]}
    assert kinds <= {"APPLICATION"}, kinds


def pages(broker, path: str, after: str) -> list[str]:
    """Returns the IDs of all pages of a list."""
    ids, query = [], ""
    for _ in range(MAX_PAGES):
        page = broker.call("GET", path + query).expect(200).json()
        ids += [entry["id"] for entry in page["data"]]
        if not page["has_more"]:
            assert len(ids) == len(set(ids)), "an entry is listed twice"
            return ids
        query = f"{'&' if '?' in path else '?'}{after}={ids[-1]}"
    raise AssertionError(f"the pages do not end: {len(ids)} entries, {len(set(ids))} of them different")
