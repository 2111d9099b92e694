"""Grants of the roles that no scenario uses, each with the reason. `*` stands for any text."""

UNUSED_GRANTS = {
    "*: logs:* on *": "Lambda writes the logs, not the function",
    "DrainFunction: sqs:ReceiveMessage on *": "the event source mapping receives",
    "DrainFunction: sqs:DeleteMessage on *": "the event source mapping deletes",
    "DrainFunction: sqs:GetQueueAttributes on WebhookQueue": "the event source mapping needs it",
    "DrainFunction: sqs:ChangeMessageVisibility on WebhookQueue": "one statement covers both queues",
    "*: s3:ListBucket on Bodies": "makes S3 answer 404 instead of 403 for a missing object; only the API lists objects",
}
