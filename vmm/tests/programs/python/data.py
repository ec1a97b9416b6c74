"""Formats, numbers, text, times: what needs no more than the processor and a few files."""

import array
import base64
import binascii
import bisect
import bz2
import calendar
import cmath
import codecs
import collections
import colorsys
import configparser
import copy
import csv
import dataclasses
import datetime
import decimal
import difflib
import email
import email.message
import enum
import fractions
import functools
import gettext
import graphlib
import gzip
import hashlib
import heapq
import hmac
import html.parser
import io
import itertools
import json
import locale
import lzma
import marshal
import math
import operator
import pickle
import plistlib
import pprint
import random
import re
import secrets
import shelve
import shlex
import sqlite3
import statistics
import string
import struct
import tarfile
import textwrap
import timeit
import tomllib
import traceback
import types
import typing
import unicodedata
import uuid
import weakref
import xml.dom.minidom
import xml.etree.ElementTree
import zipfile
import zlib
import zoneinfo

text = "".join(f"line {i * 7919 % 10007}\n" for i in range(20_000)).encode()
for module in (zlib, bz2, lzma, gzip):
    packed = module.compress(text)
    print(module.__name__, module.decompress(packed) == text, len(packed) < len(text) // 2)
print(zlib.crc32(text), zlib.adler32(text), binascii.crc_hqx(text, 0))
for name in ("md5", "sha256", "sha3_512", "blake2s", "sha512"):
    print(name, hashlib.new(name, text).hexdigest()[:16])
print(hashlib.pbkdf2_hmac("sha256", b"p", b"s", 1000).hex()[:16], hashlib.scrypt(b"p", salt=b"s", n=1024, r=8, p=1).hex()[:16])
print(hmac.new(b"k", text, "sha1").hexdigest()[:16], hmac.compare_digest("a", "b"), len(secrets.token_urlsafe(20)), secrets.randbelow(5) < 5)
print(base64.b85encode(b"text \0"), base64.b32encode(b"x"), codecs.encode("text", "rot13"), struct.pack("<hIq4sd", -1, 2, 3, b"ab", 0.5).hex())
print(json.dumps(json.loads('{"a": [1, 2.5, null, "\\u00e9"], "b": {"c": 1e400}}'), sort_keys=True, indent=1))
print(pickle.loads(pickle.dumps({"a": {1, 2}, "b": (datetime.date(2020, 1, 1), 2**100)})), marshal.loads(marshal.dumps([1, "x"])))
with shelve.open("/tmp/shelf", "n") as shelf:
    shelf["key"] = [1, 2]
with shelve.open("/tmp/shelf") as shelf:
    print(dict(shelf))
out = io.StringIO()
csv.writer(out).writerows([["a", 'with "quotes"'], [1, "line\nbreak"]])
print(list(csv.reader(io.StringIO(out.getvalue()))))
print(tomllib.loads("[a]\nb = [1, 2]\nc = 2020-01-01"), plistlib.loads(plistlib.dumps({"a": b"x"})))
parser = configparser.ConfigParser()
parser.read_string("[s]\nk = v %(x)s\nx = 1")
print(parser["s"]["k"], shlex.split("a 'b c' d"), textwrap.fill("some words " * 10, 40).count("\n"))
tree = xml.etree.ElementTree.fromstring("<a x='1'><b>t</b><b/></a>")
print(tree.get("x"), [b.text for b in tree.iter("b")], xml.dom.minidom.parseString("<a/>").documentElement.tagName)
message = email.message.EmailMessage()
message["Subject"] = "Grüße"
message.set_content("body é\n")
message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="f")
parsed = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
print(parsed["subject"], [part.get_content_type() for part in parsed.walk()], parsed.get_body().get_content())
decimal.getcontext().prec = 50
print(decimal.Decimal(2).sqrt(), fractions.Fraction("0.125") + 1, math.comb(50, 25), math.fsum([0.1] * 10), cmath.sqrt(-1))
print(2**521 % 1_000_007, int("9" * 200) ** 3 % 97, (0.1).hex(), round(2.675, 2), f"{1234567.891:,.2f} {255:#x} {'é':>4}", math.nextafter(1, 2))
print(statistics.stdev([1, 2, 3, 4]), statistics.NormalDist().cdf(1), random.Random(42).sample(range(100), 5), random.Random("s").gauss(0, 1))
zone = zoneinfo.ZoneInfo("America/New_York")
moment = datetime.datetime(2024, 3, 10, 6, 59, tzinfo=datetime.timezone.utc)
print([(moment + datetime.timedelta(minutes=m)).astimezone(zone).isoformat() for m in (0, 1)], len(zoneinfo.available_timezones()) > 300)
print(datetime.datetime.fromisoformat("2024-02-29T12:00:00+05:30").timestamp(), calendar.monthrange(2024, 2), moment.strftime("%A %d %B %Y %j"))
print(re.sub(r"(?P<w>\w+) (?=x)", r"<\g<w>>", "ab xy cd"), re.findall(r"\b\w{2}\b", "aa b cc"), re.fullmatch(r"(a|b)*?c", "ababc").span())
print(unicodedata.name("é"), unicodedata.normalize("NFD", "é").encode(), "ß".upper(), "ǅ".casefold(), "x".isidentifier())
print(list(itertools.islice(itertools.permutations("abc"), 3)), list(itertools.pairwise("abc")), functools.reduce(operator.mul, range(1, 20)))
print(heapq.nsmallest(3, [5, 1, 4]), bisect.bisect([1, 2, 2, 3], 2), collections.Counter("abca").most_common(1), collections.deque("abc", 2))
print(list(graphlib.TopologicalSorter({"b": {"a"}, "c": {"b"}}).static_order()), difflib.get_close_matches("appel", ["apple", "pear"]))
print(uuid.uuid5(uuid.NAMESPACE_DNS, "example.org"), uuid.uuid4().version, array.array("d", [1, 2]).tobytes().hex(), colorsys.rgb_to_hsv(1, 0, 0))


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    x: int
    y: int = 0


class Colour(enum.Flag):
    RED = 1
    BLUE = 2


print(sorted([Point(2), Point(1, 5)]), dataclasses.asdict(Point(3)), Colour.RED | Colour.BLUE, copy.deepcopy([Point(1)]))
held = Point(9)
reference = weakref.ref(held)
del held
print(reference(), typing.get_type_hints(Point), types.SimpleNamespace(a=1), string.Template("$a").substitute(a=1))
match {"kind": "circle", "r": 2}:
    case {"kind": "circle", "r": r}:
        print("matched", r)
try:
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ExceptionGroup("several", [ValueError("a"), error])
except* ValueError as group:
    print(group.exceptions)
except* ZeroDivisionError as group:
    print("".join(traceback.format_exception_only(group)))
with tarfile.open("/tmp/a.tar.xz", "w:xz") as archive:
    info = tarfile.TarInfo("inner")
    info.size = len(text)
    archive.addfile(info, io.BytesIO(text))
print(tarfile.open("/tmp/a.tar.xz").extractfile("inner").read() == text)
with zipfile.ZipFile("/tmp/a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("inner", text)
print(zipfile.ZipFile("/tmp/a.zip").testzip(), locale.setlocale(locale.LC_ALL, "C"), gettext.gettext("untranslated"))
print(timeit.timeit("sum(range(1000))", number=100) > 0, len(pprint.pformat(list(range(100)))), html.unescape("&eacute;"), sqlite3.sqlite_version_info[0])
