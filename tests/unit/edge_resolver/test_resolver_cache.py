"""What upstreams said is kept for as long as it may be, in so much room."""

from __future__ import annotations

from services.edge.resolver.cache import AnswerCache
from services.edge.resolver.messages import Answer, Entry
from services.kernel.dnsnames import name_of


def answer(ttl_s: int, *, size: int = 4) -> Answer:
    name = name_of("www.example.com")
    return Answer(rcode=0, answers=(Entry(name=name, rtype=1, ttl_s=ttl_s, rdata=bytes(size)),))


def test_an_answer_lasts_for_its_ttl_and_tells_its_age() -> None:
    cache = AnswerCache()
    cache.put("one", answer(60), now_s=100.0)
    assert cache.get("one", now_s=130.5) == (answer(60), 30)
    assert cache.get("one", now_s=159.9) is not None
    assert cache.get("one", now_s=160.0) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_an_answer_without_a_ttl_is_not_kept_and_ends_the_one_before() -> None:
    cache = AnswerCache()
    cache.put("one", answer(60), now_s=0.0)
    cache.put("one", answer(0), now_s=1.0)
    assert cache.get("one", now_s=1.0) is None


def test_what_was_asked_for_longest_ago_makes_room() -> None:
    room = answer(60, size=1000).size_bytes * 3
    cache = AnswerCache(max_bytes=room)
    for number in range(3):
        cache.put(number, answer(60, size=1000), now_s=0.0)
    assert cache.get(0, now_s=1.0) is not None
    cache.put(3, answer(60, size=1000), now_s=1.0)
    assert cache.get(1, now_s=1.0) is None
    assert cache.get(0, now_s=1.0) is not None
    assert cache.size_bytes == room
    cache.put("large", answer(60, size=65_000), now_s=1.0)
    assert len(cache) == 3
    cache.clear()
    assert (len(cache), cache.size_bytes) == (0, 0)
