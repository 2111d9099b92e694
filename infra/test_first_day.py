"""Tests of the first day's checks: each passes at a fake broker that behaves, and fails at one that does not."""

import contextlib
import http.server
import io
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from botocore.credentials import Credentials

import first_day
import first_day_checks as checks
from broker_client import Broker

STAGE = "/v"
LIMIT = 3


class FakeBroker:
    """A broker as the checks see it. `faults` names what it does wrong."""

    def __init__(self, *faults, cap=LIMIT):
        self.faults, self.cap = set(faults), cap
        self.used = self.settled = self.uploaded = 0
        self.lock = threading.Lock()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        # The parallel calls arrive together.
        self.server.socket.listen(128)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def has(self, fault):
        return fault in self.faults

    def subject(self, credentials=None, **options):
        url = f"http://127.0.0.1:{self.server.server_port}{STAGE}"
        broker = Broker(url, "a-key", credentials, "us-east-1")
        defaults = {"idle_calls": 3, "idle_pause_s": 0, "poll_s": 0.01, "patience_s": 0.3, "parallel": 20}
        return checks.Subject(broker=broker, model="m", **(defaults | options))

    def answer(self, method, path, headers, body):
        """Returns status, headers and JSON of a response."""
        if not path.startswith(STAGE + "/"):
            return 403, {}, {"message": "Forbidden"}
        path = path.removeprefix(STAGE)
        is_signed = "/execute-api/aws4_request" in headers.get("authorization", "")
        if self.has("an IAM front door") and not is_signed:
            return 403, {}, {"message": "Missing Authentication Token"}
        if "x-api-key" not in headers:
            error = {"message": "Unauthorized"} if self.has("foreign errors") else problem("no key")
            return 401, {"x-amzn-remapped-www-authenticate": "Bearer"}, error
        if path.startswith("/v1/files"):
            return self.files(method, len(body))
        if path == "/v1/chat/completions":
            return self.chat(headers, json.loads(body))
        return self.others(method, path)

    def chat(self, headers, body):
        with self.lock:
            self.used += 1
            is_refused = self.used > self.cap and not self.has("no limits")
        if is_refused and "prefer" in headers:
            return 202, {"location": self.address("/v1/jobs/1")}, {"id": "1", "status": "queued"}
        if is_refused and body["max_tokens"] == 16:
            self.used = 0
            sent = {"retry-after": "0", "retry-after-ms": "9", "x-spillway-limit": "requests_per_minute"}
            return 429, {} if self.has("foreign errors") else sent, problem("too many")
        if self.has("breaks now and then") and self.used == 2:
            return 503, {}, problem("unavailable")
        if body["max_tokens"] > 1_000 and self.has("gateway timeout"):
            return 504, {}, {"message": "Endpoint request timed out"}
        if body["max_tokens"] > 1_000 and self.has("a short timeout"):
            return 504, {"x-request-id": "1"}, problem("The model did not answer in time.")
        if body["max_tokens"] > 1_000 and self.has("refuses long answers"):
            return 400, {"x-request-id": "1"}, problem("stream it")
        if not self.has("no settlement"):
            self.settled += 1
        return 200, {}, {"choices": [{"message": {"content": "Hello"}}]}

    def files(self, method, size):
        if method == "POST" and size > 5 * checks.MIB and not self.has("large bodies"):
            return 413, {}, {"message": "Too Long"} if self.has("foreign errors") else problem("too large")
        return 200, {}, {"id": "file-1"}

    def address(self, path):
        return path if self.has("no stage") else STAGE + path

    def others(self, method, path):
        limits = [{"limit": "requests_per_minute", "cap": self.cap, "used": 0}, {"limit": "in_flight", "used": 0}]
        batch_url = f"http://127.0.0.1:{self.server.server_port}{self.address('/v1/messages/batches/1/results')}"
        state = "failed" if self.has("jobs fail") else "completed"
        found = {
            "GET /v1/quota": {"limits": limits, "settled": {"requests": self.settled}},
            "GET /v1/models": {"data": [{"id": "m"}]},
            "GET /inference-profiles": {"inferenceProfileSummaries": [{"inferenceProfileArn": "arn:x"}]},
            "POST /model/arn%3Ax/converse": {"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}},
            "POST /v1/responses": {"id": "resp_1"},
            "GET /v1/responses/resp_1": {"status": state},
            "GET /v1/jobs/1": {"status": "succeeded", "result": self.address("/v1/jobs/1/result")},
            "GET /v1/jobs/1/result": {"choices": []},
            "POST /v1/messages/batches": {"id": "1"},
            "GET /v1/messages/batches/1": {"processing_status": "ended", "results_url": batch_url},
            "GET /v1/messages/batches/1/results": {"custom_id": "a"},
        }
        if self.has("few environments") and path == "/v1/models":
            return 502, {}, {"message": "Internal server error"}
        return (200, {}, found[f"{method} {path}"]) if f"{method} {path}" in found else (404, {}, problem("no path"))

    def handler(fake):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, more, content = fake.answer(self.command, self.path, headers, body)
                content = json.dumps(content).encode()
                if fake.has("cuts answers") and self.command == "POST":
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(content)

            do_GET = do_POST = do_DELETE = serve

            def log_message(self, *_):
                pass

        return Handler


def problem(message):
    return {"error": {"message": message}}


class FakeAccount:
    """An account as the checks see it."""

    def __init__(self, loops="Allow", dropped=0, names=("duration_ms",)):
        self.recursive_loops = lambda: loops
        self.dropped_invocations = lambda since_s: dropped
        self.metric_names = lambda: set(names)


class ChecksTest(unittest.TestCase):
    def result(self, check, *faults, cap=LIMIT, **options):
        fake = FakeBroker(*faults, cap=cap)
        self.addCleanup(fake.close)
        with mock.patch.dict(first_day.CHECKS, {0: (check, "", "")}):
            return first_day.run(0, fake.subject(**options))

    def assert_verdict(self, verdict, result, *words):
        self.assertEqual(verdict, result.verdict, result.seen)
        for word in words:
            self.assertIn(word, result.seen)

    def test_refusals_need_the_brokers_headers_and_errors(self):
        self.assert_verdict("pass", self.result(checks.refusals), "x-amzn-remapped-www-authenticate", "retry-after-ms")
        self.assert_verdict("FAIL", self.result(checks.refusals, "foreign errors"), "401")
        self.assert_verdict("FAIL", self.result(checks.refusals, "no limits"), "no 429")
        self.assert_verdict("----", self.result(checks.refusals, cap=1_000), "no limit of at most 30")

    def test_resent_jobs_end_and_none_is_dropped(self):
        self.assert_verdict("pass", self.result(checks.resends, account=FakeAccount()), "9 jobs", "Allow")
        dropping = FakeAccount(loops="Terminate")
        self.assert_verdict("FAIL", self.result(checks.resends, account=dropping), "Terminate")
        self.assert_verdict("FAIL", self.result(checks.resends, account=FakeAccount(dropped=2)), "2 invocations dropped")
        self.assert_verdict("FAIL", self.result(checks.resends, "jobs fail", account=FakeAccount()), "failed")
        self.assert_verdict("----", self.result(checks.resends), "boto3")

    def test_a_call_now_and_then_never_fails(self):
        self.assert_verdict("pass", self.result(checks.idle_calls), "{'200': 3}")
        self.assert_verdict("FAIL", self.result(checks.idle_calls, "breaks now and then"), "'503': 1")
        self.assert_verdict("FAIL", self.result(checks.idle_calls, "cuts answers"), "RemoteDisconnected")

    def test_a_long_answer_arrives_or_the_broker_refuses_it(self):
        self.assert_verdict("pass", self.result(checks.long_answer, long_seconds=0), "200 after")
        self.assert_verdict("pass", self.result(checks.long_answer, "refuses long answers"), "stream it")
        self.assert_verdict("FAIL", self.result(checks.long_answer, "gateway timeout"), "Endpoint request timed out")
        self.assert_verdict("FAIL", self.result(checks.long_answer, "cuts answers"), "cut off")
        self.assert_verdict("----", self.result(checks.long_answer), "choose a slower one")
        self.assert_verdict("----", self.result(checks.long_answer, "a short timeout"), "timeout_ms")

    def test_a_large_body_is_accepted_or_refused_readably(self):
        self.assert_verdict("pass", self.result(checks.bodies), "4.3 MiB: 200", "5.9 MiB: 413")
        self.assert_verdict("pass", self.result(checks.bodies, "large bodies"), "5.9 MiB: 200")
        self.assert_verdict("FAIL", self.result(checks.bodies, "foreign errors"), "5.9 MiB: 413", "Too Long")

    def test_a_cut_stream_is_settled(self):
        self.assert_verdict("pass", self.result(checks.cut_stream), "settled")
        self.assert_verdict("FAIL", self.result(checks.cut_stream, "no settlement"), "not settled")

    def test_addresses_work_as_they_are(self):
        self.assert_verdict("pass", self.result(checks.addresses), "/v/v1/jobs/1/result", "results_url http")
        self.assert_verdict("FAIL", self.result(checks.addresses, "no stage"), "Location /v1/jobs/1: HTTP 403")
        self.assert_verdict("FAIL", self.result(checks.addresses, "no limits"), "became a job")

    def test_parallel_calls_are_all_served(self):
        self.assert_verdict("pass", self.result(checks.parallel_calls), "{'200': 20}")
        self.assert_verdict("FAIL", self.result(checks.parallel_calls, "few environments"), "{'502': 20}")

    def test_metrics_appear(self):
        self.assert_verdict("pass", self.result(checks.metrics, account=FakeAccount()), "duration_ms")
        self.assert_verdict("FAIL", self.result(checks.metrics, account=FakeAccount(names=())), "no metric")
        self.assert_verdict("----", self.result(checks.metrics), "--stack")

    def test_signatures_need_the_front_door(self):
        self.assert_verdict("----", self.result(checks.signed_arn), "--sign")
        variables = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        with mock.patch.dict(os.environ, variables):
            signed = {"credentials": Credentials("id", "secret")}
            self.assert_verdict("pass", self.result(checks.signed_arn, "an IAM front door", **signed), "arn:x", "Hi")
            self.assert_verdict("FAIL", self.result(checks.signed_arn, **signed), "an unsigned request is not refused")

    def test_a_broker_that_is_gone_fails_every_check(self):
        fake = FakeBroker()
        target = fake.subject(account=FakeAccount())
        fake.close()
        for number in [2, 3, 4, 5, 6, 8, 9, 10, 11]:
            with self.subTest(first_day.CHECKS[number][0].__name__):
                self.assertEqual("FAIL", first_day.run(number, target).verdict)


class Http2Test(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.certificate, self.key = Path(folder.name) / "certificate.pem", Path(folder.name) / "key.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        command += " -addext subjectAltName=DNS:localhost"
        outputs = ["-keyout", self.key, "-out", self.certificate]
        subprocess.run([*command.split(), *outputs], check=True, capture_output=True)
        variables = mock.patch.dict(os.environ, {"AWS_CA_BUNDLE": str(self.certificate)})
        variables.start()
        self.addCleanup(variables.stop)

    def server(self, protocol):
        """Starts a TLS server that speaks only `protocol`. Returns its URL."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols([protocol])
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        self.addCleanup(listener.close)
        return f"https://localhost:{listener.getsockname()[1]}"

    def result(self, api, function_url=""):
        return checks.http2(checks.Subject(broker=Broker(api, "a-key"), model="m", function_url=function_url))

    def test_each_base_url_must_speak_http2(self):
        self.assertEqual(checks.passed("the API speaks h2"), self.result(self.server("h2")))
        mixed = self.result(self.server("h2"), self.server("http/1.1"))
        self.assertEqual(checks.failed("the API speaks h2; the Function URL speaks http/1.1"), mixed)
        self.assertEqual("----", self.result("http://localhost").verdict)


class AccountTest(unittest.TestCase):
    def test_the_account_asks_aws_as_its_services_document(self):
        import boto3
        from botocore.stub import ANY, Stubber

        account = first_day.Account(boto3.Session("id", "secret", region_name="us-east-1"), "spillway")
        expected = [
            ("cloudformation", "describe_stacks", {"Stacks": [stack()]}, {"StackName": "spillway"}),
            ("cloudformation", "describe_stack_resource", {"StackResourceDetail": drain()}, None),
            ("lambda", "get_function_recursion_config", {"RecursiveLoop": "Allow"}, {"FunctionName": "the-drain"}),
            ("cloudformation", "describe_stack_resource", {"StackResourceDetail": drain()}, None),
            ("cloudwatch", "get_metric_statistics", {"Datapoints": [{"Sum": 2.0}, {"Sum": 1.0}]}, None),
            ("cloudwatch", "list_metrics", {"Metrics": [{"MetricName": "duration_ms"}]},
             {"Namespace": "Spillway/spillway", "RecentlyActive": ANY}),
        ]
        stubs = {service: Stubber(account.client(service)) for service in ["cloudformation", "lambda", "cloudwatch"]}
        for service, operation, response, parameters in expected:
            stubs[service].add_response(operation, response, parameters)
        for stub in stubs.values():
            stub.activate()
        self.assertEqual({"ApiUrl": "https://x/v"}, account.outputs())
        self.assertEqual("Allow", account.recursive_loops())
        self.assertEqual(3, account.dropped_invocations(0))
        self.assertEqual({"duration_ms"}, account.metric_names())


def stack():
    outputs = [{"OutputKey": "ApiUrl", "OutputValue": "https://x/v"}]
    return {"StackName": "spillway", "CreationTime": 0, "StackStatus": "CREATE_COMPLETE", "Outputs": outputs}


def drain():
    return {
        "LogicalResourceId": "DrainFunction",
        "PhysicalResourceId": "the-drain",
        "ResourceType": "AWS::Lambda::Function",
        "LastUpdatedTimestamp": 0,
        "ResourceStatus": "CREATE_COMPLETE",
    }


class CommandTest(unittest.TestCase):
    def main(self, *arguments, **variables):
        output = io.StringIO()
        with mock.patch.dict(os.environ, variables), mock.patch("sys.argv", ["first_day.py", *arguments]):
            with contextlib.redirect_stdout(output):
                return first_day.main(), output.getvalue()

    def test_the_exit_code_says_whether_a_check_failed(self):
        for faults, code, summary in [((), 0, "2 passed, 0 failed"), (("few environments",), 1, "1 passed, 1 failed")]:
            fake = FakeBroker(*faults)
            self.addCleanup(fake.close)
            url = fake.subject().broker.url
            found, output = self.main("--only", "6,10", "--model", "m", SPILLWAY_API_URL=url, SPILLWAY_KEY="a-key")
            self.assertEqual(code, found, output)
            self.assertIn(summary, output)
            self.assertNotIn("a-key", output)


if __name__ == "__main__":
    unittest.main()
