"""The verifier beside botocore's signer: what botocore signs passes, what it would sign otherwise doesn't."""

from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sigv4_requests import (
    ARN,
    HOST,
    KEY,
    ME,
    REGION,
    SignsEverything,
    accepted,
    header,
    presign,
    sign,
    signed_at,
    verify,
    with_authorization,
    with_header,
    with_more_headers,
    without_header,
)

# A busy machine is no fault of the code.
calmly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# Whatever botocore's signer can be given.

ASCII = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


encoded = st.text(max_size=6).map(lambda text: quote(text, safe=""))


raw_in_path = st.text(ASCII.filter(lambda character: character not in "?#"), max_size=6)


raw_in_query = st.text(ASCII.filter(lambda character: character not in "#&"), max_size=6)


segment = st.one_of(
    encoded, raw_in_path, st.sampled_from(["", ".", "..", "%2F", "%2f", "%252F", "a+b", quote(ARN, "")])
)


paths = st.lists(segment, max_size=6).map(lambda segments: "".join("/" + one for one in segments))


pairs = st.one_of(
    raw_in_query,
    encoded,
    st.tuples(st.sampled_from(["a", "tagKeys", "%C3%A4"]) | encoded, encoded).map("=".join),
)


queries = st.lists(pairs, max_size=5).map("&".join)


values = st.text(
    st.sampled_from("ab,; \t\xa0\x85é\"'=") | st.characters(min_codepoint=0x20, max_codepoint=0x7E),
    max_size=12,
)


names = st.sampled_from(
    [
        "Content-Type",
        "X-Amzn-Client-Token",
        "X-Amz-Target",
        "Accept",
        "User-Agent",
        "X-Amzn-Trace-Id",
        "If-Match",
    ]
)


anything = st.lists(st.sampled_from("\ud800\udcff\0\n%/=;,") | st.characters()).map("".join)


requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "get"]),
        "path": paths,
        "query": queries,
        "headers": st.lists(st.tuples(names, values), max_size=6),
        "body": st.binary(max_size=40),
    }
)


@calmly
@given(requests, st.sampled_from([SigV4Auth, SignsEverything]))
def test_whatever_botocore_signs_passes(parts, signer):
    assert verify(sign(**parts, signer=signer)) == ME


@calmly
@given(requests, st.integers(1, 604800))
def test_whatever_botocore_presigns_passes(parts, expires):
    del parts["body"]
    request = presign(**parts, expires=expires)
    assert verify(request, now=signed_at(request) + timedelta(seconds=expires)) == ME


def canonical(request):
    """What botocore would sign of the request: the names of the headers are the client's choice."""
    proof = header(request, "authorization")
    signed = proof.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    if not {name for name, _ in request.headers}.issuperset(signed):
        return "nothing: a header is missing"
    url = f"http://{HOST}{request.path}" + (f"?{request.query}" if request.query else "")
    again = AWSRequest(request.method, url, data=request.body)
    for name, value in request.headers:
        if name in signed:
            again.headers[name] = value
    return SignsEverything(None, "lookoutvision", REGION).canonical_request(again)


def edited(data, text, alphabet):
    """The text with a character put in, taken out or replaced somewhere."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 1, len(text))))
    return text[:start] + data.draw(st.text(alphabet, max_size=1)) + text[end:]


def mutated_header(data, request):
    headers = list(request.headers)
    place = data.draw(st.sampled_from([i for i, (name, _) in enumerate(headers) if name != "authorization"]))
    name, value = headers[place]
    match data.draw(st.sampled_from(["edit", "remove", "repeat", "unsigned", "shuffle"])):
        case "edit":
            headers[place] = name, edited(data, value, st.sampled_from("aZ0 \t,"))
        case "remove":
            del headers[place]
        case "repeat":
            headers.insert(place, (name, data.draw(values)))
        case "unsigned":
            headers.insert(
                place, (data.draw(st.sampled_from(["via", "x-forwarded-for", "x-amzn-trace-id"])), value)
            )
        case "shuffle":
            headers = data.draw(st.permutations(headers))
    return replace(request, headers=headers)


MUTATIONS = {
    "method": lambda data, request: replace(
        request, method=edited(data, request.method, st.sampled_from("GETPOSgetpos"))
    ),
    "path": lambda data, request: replace(
        request, path="/" + edited(data, request.path, st.sampled_from("/.%aA2Ff~+")).removeprefix("/")
    ),
    "query": lambda data, request: replace(
        request, query=edited(data, request.query, st.sampled_from("&=%aA2Ff~+"))
    ),
    "query's order": lambda data, request: replace(
        request, query="&".join(data.draw(st.permutations(request.query.split("&"))))
    ),
    "body": lambda data, request: replace(request, body=data.draw(st.binary(max_size=3)) + request.body[1:]),
    "header": mutated_header,
}


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS.keys())
@calmly
@given(st.data(), requests, st.sampled_from([SigV4Auth, SignsEverything]))
def test_a_mutation_is_refused_exactly_when_it_alters_the_canonical_request(mutate, data, parts, signer):
    request = sign(**parts, signer=signer)
    mutated = mutate(data, request)
    assert accepted(mutated) == (canonical(mutated) == canonical(request))


@calmly
@given(st.data(), requests)
def test_no_other_authorization_passes(data, parts):
    request = sign(**parts)
    old = header(request, "authorization")
    new = edited(data, old, st.sampled_from("/;,=a0Z "))
    if accepted(with_header(request, "authorization", new)):
        nothing = str.maketrans("", "", ", ")
        assert new.translate(nothing) == old.translate(nothing)


@calmly
@given(st.data(), queries)
def test_no_other_presigned_query_passes(data, query):
    request = presign(query=query)
    old = request.query
    new = edited(data, old, st.sampled_from("&=%a0F"))
    if accepted(replace(request, query=new)):
        assert sorted(pair + "=" * ("=" not in pair) for pair in new.split("&")) == sorted(
            pair + "=" * ("=" not in pair) for pair in old.split("&")
        )


@calmly
@given(requests, anything, anything)
def test_garbage_meets_no_other_exception(parts, garbage, name):
    request = sign(**parts)
    for spoilt in (
        replace(request, method=garbage),
        replace(request, path=garbage),
        replace(request, query=garbage),
        with_more_headers(request, (name, garbage)),
        replace(request, headers=[(name, garbage) for name, _ in request.headers]),
        with_header(request, "x-amz-date", garbage),
        replace(
            presign(),
            query=f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={garbage}&X-Amz-Credential={garbage}",
        ),
        replace(presign(), query=presign().query + "&" + garbage),
        with_more_headers(without_header(request, "x-amz-date"), ("date", garbage)),
        with_more_headers(request, ("x-amz-security-token", garbage)),
        *(with_authorization(request, part, garbage) for part in (KEY, REGION, "host", "AWS4", ", ")),
        with_authorization(request, "host", garbage + ";host"),
    ):
        accepted(spoilt)


@calmly
@given(st.datetimes(), st.sampled_from(["+0000", "-0000", "GMT", "+9999", "-2359", "", "XYZ"]), st.data())
def test_a_strange_http_date_meets_no_other_exception(moment, zone, data):
    date = edited(data, f"{moment:%a, %d %b %Y %H:%M:%S} {zone}", st.characters())
    request = with_more_headers(without_header(sign(), "x-amz-date"), ("date", date))
    assert not accepted(request)
