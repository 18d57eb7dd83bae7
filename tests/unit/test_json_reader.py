"""Reading JSON objects; errors name the member and show its value."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_network
from macvlan_twisted.errors import BadRequest
from macvlan_twisted.protocol.json_reader import Fields, parse_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


class FieldsTestCase(SynchronousTestCase):
    def refused(self, call: Any, *words: str) -> str:
        with self.assertRaises(BadRequest) as caught:
            call()
        for word in words:
            self.assertIn(word, str(caught.exception))
        return str(caught.exception)

    def body_refused(self, raw: bytes, *words: str) -> str:
        return self.refused(lambda: parse_body("X.Y", raw), "X.Y", *words)


class BodyTests(FieldsTestCase):
    def test_an_empty_body_is_an_error(self) -> None:
        for raw in (b"", b"\n", b" \r\n\t"):
            self.body_refused(raw, "empty body", "run the docker command again")

    def test_a_body_that_is_not_a_json_object_is_refused(self) -> None:
        for raw in (b"{", b"nonsense", b"{}{}", b"\xff\xfe\xfd", b'{"a":"\xff"}', b'{"a":1', b"\x00"):
            self.body_refused(raw, "not JSON")
        for raw, shown in ((b"[]", "[]"), (b"null", "None"), (b"7", "7"), (b'"text"', "'text'")):
            self.body_refused(raw, f"must be a JSON object, not {shown}")

    def test_huge_numbers_and_deep_nesting_are_refused(self) -> None:
        self.body_refused(b'{"a":' + b"1" * 5000 + b"}", "not JSON")
        self.body_refused(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply")

    def test_any_depth_of_nesting_is_refused(self) -> None:
        """Also at depths that the parser accepts and the message cannot show."""
        for depth in range(100, 1200, 9):
            nested = b"[" * depth + b"]" * depth
            with self.assertRaises(BadRequest, msg=str(depth)):
                parse_body("X.Y", nested)
            with self.assertRaises(BadRequest, msg=str(depth)):
                parse_body("X.Y", b'{"NetworkID":' + nested + b"}").identifier("NetworkID")

    def test_a_lone_surrogate_is_refused(self) -> None:
        for raw in (b'{"a":"\\ud800"}', b'{"\\uDC00":1}', b'{"a":["\\ud800x"]}', b'{"a":"\\udc00\\ud800"}'):
            self.body_refused(raw, "surrogate")
        self.body_refused(b'{"a":"\xed\xa0\x80"}', "not JSON")
        fields = parse_body("X.Y", b'{"a":"\\ud83d\\ude00 \\\\ud800"}')
        self.assertEqual(fields.text("a"), "\U0001f600 \\ud800")

    def test_messages_stay_short(self) -> None:
        self.assertLess(len(self.body_refused(json.dumps(["x" * 100_000]).encode())), 200)

    @given(
        st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    )
    def test_any_bytes_are_an_object_or_a_bad_request(self, raw: bytes) -> None:
        try:
            parse_body("X.Y", raw)
        except BadRequest as error:
            self.assertIn("X.Y", str(error))


READERS = ("text", "identifier", "flag", "object", "mapping", "texts", "objects")


class MemberTests(FieldsTestCase):
    def test_absent_and_null_read_as_zero_values_of_go(self) -> None:
        for fields in (Fields("X", {}), Fields("X", {"a": None})):
            self.assertEqual(fields.text("a"), "")
            self.assertIs(fields.flag("a"), False)
            self.assertEqual(fields.mapping("a"), {})
            self.assertEqual(fields.texts("a"), {})
            self.assertEqual(fields.objects("a"), [])
            self.assertEqual(fields.object("a").text("b"), "")
            self.assertIsNone(fields.parsed("a", parse_network))

    def test_another_type_is_refused_with_the_members_name(self) -> None:
        for reader, value in (
            ("text", 7),
            ("text", {}),
            ("flag", "true"),
            ("flag", 1),
            ("mapping", []),
            ("object", "x"),
            ("texts", [1]),
            ("texts", {"k": 7}),
            ("objects", {}),
            ("objects", [{}, 7]),
            ("identifier", 7),
        ):
            fields = Fields("X.Y", {"Member": value})
            self.refused(lambda f=fields, r=reader: getattr(f, r)("Member"), "X.Y", "Member", "must be")

    def test_an_identifier_is_letters_and_digits(self) -> None:
        for good in ("a" * 64, "ab12z0" * 4 + "1"):
            self.assertEqual(Fields("X", {"i": good}).identifier("i"), good)
        for bad in ("", None, "../x", "a b", "é", "a" * 129, "a\n"):
            self.refused(lambda b=bad: Fields("X", {"i": b}).identifier("i"), "i must be")

    def test_a_parse_error_names_member_and_remedy(self) -> None:
        fields = Fields("X.Y", {"Data": [{"Pool": "10.0.0.1/8"}]}).objects("Data")[0]
        self.refused(lambda: fields.required("Pool", parse_network), "(X.Y: Data[0]: Pool)", "10.0.0.0/8")

    def test_a_required_member_must_not_be_empty(self) -> None:
        self.refused(lambda: Fields("X.Y", {"Pool": ""}).required("Pool", parse_network), "Pool must be set")

    @given(st.dictionaries(st.just("m"), JSON), st.sampled_from(READERS))
    def test_any_value_is_read_or_a_bad_request(self, members: dict[str, Any], reader: str) -> None:
        try:
            getattr(Fields("X", members), reader)("m")
        except BadRequest as error:
            self.assertRegex(str(error), r"^X: (key .* of )?m must be ")
