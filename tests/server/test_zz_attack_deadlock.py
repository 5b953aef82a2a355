from __future__ import annotations
import pytest, collections, re
from dataset_lab import Lab
from manifest_lines import line, manifest
from test_dataset_tokens import at_once, OF, lab, clients
def test_race(lab, clients, service):
    seen = collections.Counter()
    for n in range(6):
        lab.created(b"no JSON", ClientToken=f"t{n}")
        src = lab.source(b"no JSON")
        calls=[lambda c=c: c.create_dataset(**OF, DatasetSource=src, ClientToken=f"t{n}") for c in clients[:2]]
        calls+=[lambda c=c: c.delete_dataset(**OF) for c in clients[2:]]
        for a in at_once(calls): seen[str(a)[:40] if isinstance(a,str) or a=={} else 'made']+=1
        try:
            lab.settled(); lab.delete()
        except Exception as e: pass
    print(seen)
    import json
    for l in service.log_file.read_text().splitlines():
        if 'exception' in l: print(json.loads(l)['exception'][-900:]); break
