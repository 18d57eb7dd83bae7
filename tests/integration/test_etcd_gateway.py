"""Our client with real etcd clusters of three members, and their troubles."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from macvlan_twisted.fleet.etcd_credentials import TlsFiles
from macvlan_twisted.fleet.etcd_gateway import EtcdGateway
from macvlan_twisted.fleet.etcd_values import (
    Absent,
    Comparison,
    Delete,
    EtcdRefused,
    EtcdUnavailable,
    Get,
    HasValue,
    Put,
    Refusal,
    TxnAnswer,
    Unchanged,
)
from tests.integration.conftest import need
from tests.integration.etcd_clients import Follower, eventually, gateway_to
from tests.integration.on_reactor import on_reactor
from tests.lab.certificates import Authority
from tests.lab.commands import CommandFailed
from tests.lab.etcd import Cluster, Member
from tests.lab.lan import Lan
from tests.lab.requirements import missing_for_etcd

PLACES = ("gateway",) * 3
AMPLE = 60.0
"""Seconds for a request on a busy machine."""


@pytest.fixture
def version(etcd_version: str) -> str:
    """Name a release of etcd that can run here."""
    need(missing_for_etcd(etcd_version))
    return etcd_version


@pytest.fixture
def cluster(lan: Lan, version: str) -> Iterator[Cluster]:
    """Run three members for one test."""
    with Cluster(lan, PLACES, version=version) as made:
        yield made


async def put(etcd: EtcdGateway, key: str, value: bytes = b"v", *, lease: int = 0) -> TxnAnswer:
    return await etcd.txn([], [Put(key, value, lease)], repeatable=True, timeout=AMPLE)


async def created(etcd: EtcdGateway, key: str) -> bool:
    """
    Say whether a key is there, after an attempt to create it.

    A frozen member does what it was asked for when it goes on: a mere put would then be done twice.
    """
    try:
        await etcd.txn([Absent(key)], [Put(key, b"v")], repeatable=True, timeout=8)
    except EtcdUnavailable:
        return False
    return True


async def leader_of(cluster: Cluster) -> Member:
    """Wait for the end of an election."""
    found: list[Member] = []

    def is_elected() -> bool:
        with suppress(RuntimeError, CommandFailed):
            found.append(cluster.leader)
        return bool(found)

    await eventually(is_elected)
    return found[0]


def put_first(etcd: EtcdGateway, member: Member) -> None:
    """Let a member be the one that is asked next."""
    for url in etcd._members._queue[:]:
        if url != member.client_url:
            etcd._members.demote(url)


def member_of(cluster: Cluster, url: str) -> Member:
    return next(each for each in cluster.members if each.client_url == url)


@on_reactor
async def test_transactions_leases_and_ranges(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster) as etcd:
        assert await etcd.get("/p/a", timeout=AMPLE) is None

        async def claim() -> TxnAnswer:
            success, failure = [Put("/p/a", b"\0\xff")], [Get("/p/a")]
            return await etcd.txn([Absent("/p/a")], success, failure, repeatable=False, timeout=AMPLE)

        first, second = await claim(), await claim()
        assert (first.succeeded, first.read, second.succeeded) == (True, ((),), False)
        (pair,) = second.read[0]
        assert (pair.key, pair.value, pair.create_revision) == ("/p/a", b"\0\xff", first.header.revision)
        assert await etcd.get("/p/a", timeout=AMPLE) == pair

        lease = await etcd.grant_lease(60, timeout=AMPLE)
        await put(etcd, "/p/b", lease=lease.id)
        await put(etcd, "/q")
        found = await etcd.range("/p/", timeout=AMPLE)
        assert [(each.key, each.lease) for each in found.pairs] == [("/p/a", 0), ("/p/b", lease.id)]
        assert 0 < await etcd.keep_alive(lease.id, timeout=AMPLE) <= 60
        await etcd.revoke_lease(lease.id, timeout=AMPLE)
        assert await etcd.keep_alive(lease.id, timeout=AMPLE) == 0
        with pytest.raises(EtcdRefused) as refused:
            await put(etcd, "/p/b", lease=lease.id)
        assert refused.value.kind is Refusal.NO_LEASE

        stale = [Unchanged("/p/a", pair.mod_revision + 1)]
        assert not (await etcd.txn(stale, [Delete("/p/a")], repeatable=True, timeout=AMPLE)).succeeded
        mine: list[Comparison] = [Unchanged("/p/a", pair.mod_revision), HasValue("/p/a", b"\0\xff")]
        assert (await etcd.txn(mine, [Delete("/p/a")], repeatable=True, timeout=AMPLE)).succeeded
        assert (await etcd.range("/p/", timeout=AMPLE)).pairs == ()


@on_reactor
async def test_many_keys_are_read_in_pages(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster) as etcd:
        keys = [f"/p/{number:04}" for number in range(1100)]
        for start in range(0, len(keys), 100):
            writes = [Put(key, b"v") for key in keys[start : start + 100]]
            await etcd.txn([], writes, repeatable=True, timeout=AMPLE)
        found = await etcd.range("/p/", timeout=AMPLE)
        assert [each.key for each in found.pairs] == keys


@on_reactor
async def test_members_are_learnt_from_one(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster, members=1) as etcd:
        assert len(await etcd.members(timeout=AMPLE)) == 3
        await eventually(lambda: len(etcd._members._queue) == 3)
        cluster.members[0].kill()
        assert await etcd.get("/a", timeout=AMPLE) is None
        assert (await etcd.status(timeout=AMPLE)).version


@on_reactor
async def test_killed_and_frozen_members_are_passed_over(lan: Lan, cluster: Cluster) -> None:
    """A read by a second one is a read within half of the time that the request has."""
    async with gateway_to(lan, cluster) as etcd:
        await put(etcd, "/a")
        for harm in (Member.pause, Member.kill):
            leader = await leader_of(cluster)
            victim = next(each for each in cluster.members if each is not leader)
            put_first(etcd, victim)
            harm(victim)
            pair = await etcd.get("/a", timeout=AMPLE / 4)
            assert pair is not None
            assert etcd._members.preferred != victim.client_url
            began = time.monotonic()
            await etcd.get("/a", timeout=AMPLE)
            assert time.monotonic() - began < AMPLE / 8, "the victim is not asked first any more"
            victim.resume()
            cluster.start()


@on_reactor
async def test_frozen_leader_is_replaced(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster) as etcd:
        await put(etcd, "/a")
        leader = await leader_of(cluster)
        put_first(etcd, leader)
        leader.pause()

        async def is_written() -> bool:
            try:
                await etcd.txn([], [Put("/a", b"2")], repeatable=True, timeout=4)
            except EtcdUnavailable:
                return False
            return True

        await eventually(is_written)
        leader.resume()


@on_reactor
async def test_cluster_without_quorum_is_unavailable(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster) as etcd:
        await put(etcd, "/a")
        for member in cluster.members[1:]:
            member.kill()
        with pytest.raises(EtcdUnavailable) as error:
            await etcd.get("/a")
        with pytest.raises(EtcdUnavailable) as error:
            await etcd.txn([], [Put("/a", b"lost")], repeatable=True)
        assert error.value.is_outcome_unknown
        cluster.members[0].kill()
        with pytest.raises(EtcdUnavailable) as error:
            await etcd.txn([], [Put("/a", b"lost")], repeatable=True)
        assert not error.value.is_outcome_unknown, "nobody listens"
        cluster.start()
        assert await etcd.get("/a", timeout=AMPLE)


@on_reactor
async def test_watch_survives_the_loss_of_members(lan: Lan, cluster: Cluster) -> None:
    """Each change is reported once, in order, whichever member is killed or frozen."""
    async with gateway_to(lan, cluster) as etcd:
        header = (await put(etcd, "/p/0")).header
        with Follower(etcd, "/p/", header) as follower:
            await follower.established()
            for number, harm in enumerate((Member.kill, Member.pause, Member.stop), 1):
                victim = member_of(cluster, follower.member)
                harm(victim)
                await eventually(partial(created, etcd, f"/p/{number}"))
                await follower.has_seen(number)
                victim.resume()
                cluster.start()
            assert [each.pair.key for each in follower.events] == ["/p/1", "/p/2", "/p/3"]


@on_reactor
async def test_watch_leaves_a_member_that_lost_its_leader(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster) as etcd:
        header = (await put(etcd, "/p/0")).header
        with Follower(etcd, "/p/", header) as follower:
            await follower.established()
            others = [each for each in cluster.members if each.client_url != follower.member]
            for each in others:
                each.pause()
            await eventually(lambda: any("no leader" in reason for reason in follower.interruptions))
            for each in others:
                each.resume()
            cluster.wait_until_healthy()
            await put(etcd, "/p/1")
            await eventually(lambda: [each.pair.key for each in follower.events] == ["/p/1"])


@on_reactor
async def test_watch_from_a_compacted_revision_is_refused(lan: Lan, cluster: Cluster) -> None:
    async with gateway_to(lan, cluster) as etcd:
        header = (await put(etcd, "/p/0")).header
        for _ in range(5):
            last = (await put(etcd, "/p/0")).header
        cluster.etcdctl("compaction", str(last.revision))
        with Follower(etcd, "/p/", header) as follower:
            refused = await follower.refusal()
        assert (refused.kind, refused.revision) == (Refusal.COMPACTED, last.revision)


@on_reactor
async def test_restored_cluster_is_noticed(lan: Lan, cluster: Cluster, tmp_path: Path) -> None:
    """With the same token even its id is as before."""
    async with gateway_to(lan, cluster) as etcd:
        await put(etcd, "/p/0")
        cluster.save(tmp_path / "snapshot")
        for _ in range(5):
            header = (await put(etcd, "/p/0")).header
        with Follower(etcd, "/p/", header) as follower:
            await follower.established()
            cluster.restore(tmp_path / "snapshot", token="lab")
            refused = await follower.refusal()
        assert refused.kind is Refusal.REPLACED
        found = await etcd.range("/p/", timeout=AMPLE)
        assert found.header.revision < header.revision


@on_reactor
async def test_full_database_is_refused(lan: Lan, version: str) -> None:
    with Cluster(lan, PLACES, version=version, quota_bytes=2**20) as cluster:
        async with gateway_to(lan, cluster) as etcd:
            lease = await etcd.grant_lease(60, timeout=AMPLE)
            with pytest.raises(EtcdRefused) as refused:
                await _fill(etcd)
            assert refused.value.kind is Refusal.NO_SPACE
            assert await etcd.keep_alive(lease.id, timeout=AMPLE)
            assert (await etcd.range("/p/", timeout=AMPLE)).pairs
            await eventually(lambda: _has_alarm(etcd))


async def _fill(etcd: EtcdGateway) -> None:
    for number in range(100):
        await put(etcd, f"/p/{number}", bytes(100_000))


async def _has_alarm(etcd: EtcdGateway) -> bool:
    return any("NOSPACE" in each for each in (await etcd.status(timeout=AMPLE)).errors)


@on_reactor
async def test_certificates(lan: Lan, version: str, tmp_path: Path) -> None:
    for each in ("ours", "theirs"):
        (tmp_path / each).mkdir()
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    client, stranger = ours.issue("client"), theirs.issue("client")
    ca = ours.own.certificate
    with Cluster(lan, PLACES, version=version, authority=ours, client_certificates=True) as cluster:
        good = TlsFiles(ca, client.certificate, client.key)
        async with gateway_to(lan, cluster, tls=good) as etcd:
            header = (await put(etcd, "/p/0")).header
            with Follower(etcd, "/p/", header) as follower:
                await follower.established()
                await put(etcd, "/p/1")
                await follower.has_seen(1)
        for tls, words in (
            (TlsFiles(theirs.own.certificate, client.certificate, client.key), "certificate verify failed"),
            (TlsFiles(ca, stranger.certificate, stranger.key), "alert|closed|lost"),
            (TlsFiles(ca), "alert|closed|lost"),
        ):
            async with gateway_to(lan, cluster, tls=tls) as etcd:
                with pytest.raises(EtcdUnavailable, match=words):
                    await etcd.get("/p/0", timeout=AMPLE)
        async with gateway_to(lan, cluster) as etcd:
            with pytest.raises(EtcdUnavailable):
                await etcd.get("/p/0", timeout=AMPLE)

        async with gateway_to(lan, cluster, tls=TlsFiles(ca, stranger.certificate, stranger.key)) as etcd:
            with pytest.raises(EtcdUnavailable):
                await etcd.get("/p/0", timeout=AMPLE)
            for new, old in ((client.certificate, stranger.certificate), (client.key, stranger.key)):
                shutil.copyfile(new, old)
            assert await etcd.get("/p/0", timeout=AMPLE), "new connections use the new files"

        ours.issue("etcd", ("192.168.77.99",))  # in the place of the members' own
        async with gateway_to(lan, cluster, tls=good) as etcd:
            with pytest.raises(EtcdUnavailable, match="shows a certificate for another server"):
                await etcd.get("/p/0", timeout=AMPLE)


@on_reactor
async def test_name_and_password(lan: Lan, version: str, tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text("fleet:secret\n")
    with Cluster(lan, PLACES, version=version, root_password="root") as cluster:
        cluster.etcdctl("role", "add", "fleet")
        cluster.etcdctl("role", "grant-permission", "--prefix=true", "fleet", "readwrite", "/p/")
        cluster.etcdctl("user", "add", "fleet:secret")
        cluster.etcdctl("user", "grant-role", "fleet", "fleet")
        async with gateway_to(lan, cluster, login=login) as etcd:
            header = (await put(etcd, "/p/0")).header
            with pytest.raises(EtcdRefused) as refused:
                await put(etcd, "/q")
            assert refused.value.kind is Refusal.AUTH
            with Follower(etcd, "/q", header) as follower:
                assert (await follower.refusal()).kind is Refusal.AUTH
            with Follower(etcd, "/p/", header) as follower:
                await follower.established()
                cluster.stop()
                cluster.start()  # it knows the tokens no more
                await put(etcd, "/p/1")
                await follower.has_seen(1)
        login.write_text("fleet:wrong\n")
        async with gateway_to(lan, cluster, login=login) as etcd:
            with pytest.raises(EtcdRefused, match="correct them"):
                await etcd.get("/p/0", timeout=AMPLE)
        async with gateway_to(lan, cluster) as etcd:
            with pytest.raises(EtcdRefused) as refused:
                await etcd.get("/p/0", timeout=AMPLE)
            assert refused.value.kind is Refusal.AUTH
