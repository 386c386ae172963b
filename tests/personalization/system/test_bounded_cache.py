import weakref

from personalization.system.bounded_cache import BoundedCache


class Made:
    pass


def test_what_was_asked_for_last_stays_as_far_as_there_is_room():
    cache, made = BoundedCache[str](10), []

    def get(key: str, size: int) -> str:
        return cache.get(key, size, lambda: made.append(key) or key.upper())

    assert [get(key, 4) for key in "abab"] == ["A", "B", "A", "B"]
    assert made == ["a", "b"]
    get("a", 4)
    get("c", 4)  # b was asked for longest ago
    get("a", 4)
    assert made == ["a", "b", "c"]
    get("b", 4)
    assert made == ["a", "b", "c", "b"]


def test_a_value_larger_than_the_room_is_kept_alone_and_never_beside_another():
    cache, alive = BoundedCache[Made](10), []

    def make() -> Made:
        assert not any(reference() for reference in alive)
        value = Made()
        alive.append(weakref.ref(value))
        return value

    cache.get("a", 20, make)
    assert cache.get("a", 20, make) is alive[0]()
    cache.get("b", 20, make)
    assert alive[0]() is None
    assert cache.get("b", 20, make) is alive[1]()
    assert len(alive) == 2
