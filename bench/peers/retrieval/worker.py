"""Runs in the peers' own environment: builds or loads one peer's index, then answers requests, a JSON line each."""

import json
import pathlib
import sys
import time

import numpy as np

K = 100
MOST_FETCHED = 10_000


class Usearch:
    """usearch's Python binding has no filter: more is fetched, as much as the share says, and the rest dropped.

    `effort` is the least beam (`expansion_search`); connectivity 32 and expansion_add 200, as for FAISS.
    """

    def __init__(self, folder, table, u):
        from usearch.index import Index

        self.u = u
        self.index = Index(ndim=table.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=200)
        path = folder / "usearch.index"
        if path.exists():
            self.index.load(str(path))
        else:
            self.index.add(np.arange(len(table)), table)
            self.index.save(str(path))

    def find(self, query, share, effort):
        fetched = min(K if share == 1.0 else int(1.5 * K / share), MOST_FETCHED, len(self.u))
        self.index.expansion_search = max(effort, fetched)
        keys = self.index.search(query, fetched, threads=1).keys
        return keys[self.u[keys] < share][:K] if share < 1.0 else keys


class Lance:
    """LanceDB: IVF_FLAT by inner product, `u` with a B-tree, filtered before the search; `effort` is `nprobes`."""

    def __init__(self, folder, table, u):
        import lancedb
        import pyarrow as pa
        from lancedb.index import BTree, IvfFlat

        database = lancedb.connect(str(folder / "lance"))
        if "items" in database.table_names():
            self.table = database.open_table("items")
            return
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
        columns = pa.table({"id": np.arange(len(table)), "u": u, "vector": vectors})
        self.table = database.create_table("items", columns)
        lists = round(len(table) ** 0.5)
        self.table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=lists))
        self.table.create_index("u", config=BTree())

    def find(self, query, share, effort):
        search = self.table.search(query).distance_type("dot").nprobes(effort).limit(K)
        if share < 1.0:
            search = search.where(f"u < {share}", prefilter=True)
        return search.select(["id", "_distance"]).to_arrow()["id"].to_numpy()


def main():
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    table, queries, u = (np.load(folder / f"{part}.npy") for part in ("table", "queries", "u"))
    started = time.perf_counter()
    peer = {"usearch": Usearch, "lancedb": Lance}[name](folder, table, u)
    print(json.dumps(f"ready in {time.perf_counter() - started:.1f} s"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds, found = [], np.full((request["num_queries"], K), -1, dtype=np.int64)
        for row in range(request["num_queries"]):
            started = time.perf_counter()
            positions = peer.find(queries[request["first"] + row], request["share"], request["effort"])
            seconds.append(time.perf_counter() - started)
            found[row, : len(positions)] = positions
        print(json.dumps({"seconds": seconds, "found": found.tolist()}), flush=True)


main()
