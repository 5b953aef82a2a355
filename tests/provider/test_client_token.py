"""The token's promises, for identities that no real DAG would dare to have."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from airflow_provider_lookoutvision.idempotency import client_token, previous_tokens

# Characters that separate, quote or escape somewhere, beside all of Unicode, lone surrogates included.
texts = st.text(st.sampled_from(list("ab01\"'\\,;:|/.+- []{}\n\0_")) | st.characters(codec=None), max_size=12)
identities = st.fixed_dictionaries(
    {
        "namespace": texts,
        "dag_id": texts,
        "run_id": texts,
        "task_id": texts,
        "map_index": st.integers(-1, 1200),
        "generation": st.integers(-3, 30),
        "purpose": st.lists(texts, max_size=3).map(tuple),
    }
)


ORDINARY = {
    "namespace": "",
    "dag_id": "line-4",
    "run_id": "scheduled__2026-01-05T00:00:00+00:00",
    "task_id": "group.create",
    "map_index": -1,
    "generation": 0,
    "purpose": (),
}


def context(identity: dict[str, Any], *, retries: int | None = 2, try_number: int = 1) -> Any:
    members = {name: identity[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    max_tries = identity["generation"] + (retries or 0)
    task = SimpleNamespace(retries=retries)
    return {"ti": SimpleNamespace(**members, max_tries=max_tries, try_number=try_number, task=task)}


def token(identity: dict[str, Any], **situation: Any) -> str:
    return client_token(context(identity, **situation), *identity["purpose"], namespace=identity["namespace"])


class Store(dict[str, Any]):
    """What a task instance keeps, as Airflow 3.3 offers it."""

    def set(self, key: str, value: Any, retention: timedelta | None = None) -> None:
        assert retention is timedelta.max, "it would expire, and the next retry have another token"
        self[key] = value


def kept(store: Store, **situation: Any) -> str:
    return client_token(context(ORDINARY, **situation) | {"task_state_store": store})


def test_a_run_that_is_created_again_has_another_token() -> None:
    first, second = Store(), Store()
    tokens = [kept(first), kept(second), token(ORDINARY)]
    assert len(set(tokens)) == 3
    assert [kept(first, try_number=number) for number in (2, 3)] == tokens[:1] * 2
    assert re.fullmatch("[a-zA-Z0-9-]{1,64}", tokens[0])
    cleared = context({**ORDINARY, "generation": 1}, try_number=2) | {"task_state_store": first}
    assert tokens[0] in previous_tokens(cleared)


def test_a_retry_after_an_upgrade_has_the_token_of_before() -> None:
    store = Store()
    assert kept(store, try_number=2) == token(ORDINARY)
    assert kept(store, try_number=3) == token(ORDINARY)


def test_where_a_success_clears_what_is_kept_there_is_no_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
    store = Store()
    assert kept(store) == token(ORDINARY)
    assert not store


@given(identities)
def test_is_what_the_api_accepts(identity: dict[str, Any]) -> None:
    assert re.fullmatch("[a-zA-Z0-9-]{1,64}", token(identity))


@given(identities, st.integers(0, 9), st.integers(0, 9))
def test_is_the_same_on_every_try(identity: dict[str, Any], one: int, other: int) -> None:
    assert token(identity, try_number=one) == token(identity, try_number=other)


@given(identities)
def test_a_task_without_retries_has_one_too(identity: dict[str, Any]) -> None:
    assert token(identity, retries=None) == token(identity, retries=0)


@given(identities, identities)
@example({**ORDINARY, "dag_id": "\ud83d\ude00"}, {**ORDINARY, "dag_id": "\U0001f600"})
def test_differs_for_another_identity(one: dict[str, Any], other: dict[str, Any]) -> None:
    assume(one != other)
    assert token(one) != token(other)


@given(identities, identities, st.data())
def test_differs_when_a_single_part_differs(
    one: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    part = data.draw(st.sampled_from(sorted(one)))
    assume(one[part] != other[part])
    assert token(one) != token({**one, part: other[part]})


@given(st.lists(texts, min_size=4, max_size=4), st.integers(0, 3), st.integers(0, 3), texts)
def test_no_separator_moves_text_from_one_part_to_the_next(
    parts: list[str], source: int, target: int, moved: str
) -> None:
    assume(moved and source != target)
    names = ("namespace", "dag_id", "run_id", "task_id")
    rest = {"map_index": -1, "generation": 0, "purpose": ()}

    def with_text_in(place: int) -> dict[str, Any]:
        texts = [text + moved if place == i else text for i, text in enumerate(parts)]
        return {**dict(zip(names, texts, strict=True)), **rest}

    assume(with_text_in(source) != with_text_in(target))
    assert token(with_text_in(source)) != token(with_text_in(target))


def test_an_unmapped_task_has_no_index_in_either_spelling() -> None:
    assert token({**ORDINARY, "map_index": None}) == token({**ORDINARY, "map_index": -1})


@given(identities, st.integers(0, 12))
def test_the_other_generations_are_those_of_the_clears_so_far(
    identity: dict[str, Any], try_number: int
) -> None:
    here = context(identity, try_number=try_number)
    others = list(previous_tokens(here, *identity["purpose"], namespace=identity["namespace"]))
    generations = [
        generation for generation in range(try_number, -1, -1) if generation != identity["generation"]
    ]
    assert others == [token({**identity, "generation": generation}) for generation in generations]
    assert token(identity) not in others


def test_the_token_of_a_release_is_the_token_of_the_next() -> None:
    # A worker is upgraded between two tries: the second must still find what the first has made.
    identity = {**ORDINARY, "namespace": "plant", "map_index": 3, "purpose": ("dataset", "train")}
    assert token(identity) == "airflow-241c4d926fdf9f9907f2baf909dbcec2490da5e599836476877e26fe"
