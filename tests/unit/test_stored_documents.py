"""Rows that earlier revisions wrote keep their meaning: the JSON in the database is a format, not an accident of our names."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.dhcp.store import LeaseRecord
from macvlan_twisted.driver.models import Endpoint, MadeLink, Network
from macvlan_twisted.ipam.pool import Pool
from macvlan_twisted.lan.conflict_table import Conflict
from macvlan_twisted.lan.host_link import HostLink
from macvlan_twisted.state.serialize import from_document, to_document

STORED = Path(__file__).parent / "stored"
KINDS = {kind.__name__: kind for kind in (Network, Endpoint, MadeLink, HostLink, Conflict, LeaseRecord, Pool)}


class StoredDocumentTests(SynchronousTestCase):
    def test_documents_of_earlier_revisions_are_read_and_written_unchanged(self) -> None:
        """Every field of those documents has another value than its default."""
        for path in sorted(STORED.glob("*.json")):
            documents = json.loads(path.read_text())
            self.assertEqual(set(documents), set(KINDS))
            for name, document in documents.items():
                with self.subTest(revision=path.stem, kind=name):
                    written = json.loads(json.dumps(to_document(from_document(KINDS[name], document))))
                    self.assertEqual({key: written.get(key) for key in document}, document)
