"""The engine over a bucket: source and store both on S3, from videos to open tickets' candidates and a release."""

import boto3
import pytest
from moto.server import ThreadedMotoServer

from engine import batches
from engine.batches import BatchStage
from engine.ingest import ingest
from engine.services import connect
from engine.stages import propose, publish
from storage.blobs.base import NotCreateOnly
from storage.blobs.s3 import S3Blobs
from storage.dataset import parts, releases


@pytest.fixture
def bucket(monkeypatch):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="masklets")
    yield endpoint
    server.stop()


def test_videos_on_s3_become_a_release_on_s3(bucket, settings, clips):
    client = boto3.client("s3", endpoint_url=bucket)
    for path in clips.iterdir():
        client.upload_file(str(path), "masklets", f"incoming/{path.name}")
    remote = settings.model_copy(
        update={
            "storage": settings.storage.model_copy(update={"root": "s3://masklets/data", "s3_endpoint": bucket}),
            "ingest": settings.ingest.model_copy(update={"source": "s3://masklets/incoming"}),
        }
    )
    with connect(remote) as s:
        report = ingest.admit(s)
        assert (report.admitted, report.ignored) == (3, 3)
        assert ingest.admit(s).unchanged == 3
        (batch_id,) = propose.pending(s)
        propose.propose_batch(s, batch_id)
        found = list(parts.rows(s.blobs, "candidates", batch_id))
        assert found
        # What people would have accepted; the queue itself is tested elsewhere and knows no bucket.
        from dataclasses import replace

        for video_id in batches.video_ids(s.blobs, batch_id):
            rows = [replace(m, verdict="accept") for m in found if m.video_id == video_id]
            parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video_id, rows=rows)
            parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=video_id, rows=[])
        for stage in (BatchStage.IN_REVIEW, BatchStage.COLLECTED):
            batches.mark(s.blobs, batch_id, stage, {})
        name = publish.publish_batch(s, batch_id)
        release = releases.load(s.blobs, name)
        assert release.verify() == []
        assert sorted(m.masklet_id for m in release.iter_masklets()) == sorted(m.masklet_id for m in found)


def without_condition(params, **_):
    params["headers"].pop("If-None-Match", None)


def test_ingest_refuses_a_store_that_ignores_if_none_match(bucket, settings):
    """Nothing is admitted there: two workers could overwrite each other's work."""
    storage = settings.storage.model_copy(update={"root": "s3://masklets/careless", "s3_endpoint": bucket})
    with connect(settings.model_copy(update={"storage": storage})) as s:
        assert isinstance(s.blobs, S3Blobs)
        s.blobs._client().meta.events.register("before-call.s3.PutObject", without_condition)
        with pytest.raises(NotCreateOnly, match="s3://masklets/careless ignores If-None-Match"):
            ingest.admit(s)
        assert list(s.blobs.keys()) == ["trouble/ingest.json"], "only the record of the failure"


def test_a_missing_bucket_is_an_error_in_one_line(bucket, settings):
    from storage.blobs.base import BlobError

    with connect(settings) as s, pytest.raises(BlobError, match="s3://nowhere") as caught:
        ingest.admit(s, "s3://nowhere/videos")
    assert "\n" not in str(caught.value)
