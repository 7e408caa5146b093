"""Tables of search measurements; `tables` writes them into the pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.results import mean_interval

Row = Mapping[str, Any]


def search_stores(result: Row) -> str:
    """One table per corpus size: engines by time per query."""
    parts = []
    for size in sorted({row["documents"] for row in result["rows"]}):
        rows = [row for row in result["rows"] if row["documents"] == size]
        head = f"{size:,} x {rows[0]['k']}, {rows[0]['threads']} thread(s)"
        lines = [f"| {head} | recall@10 | ms, one query | ms, 64 queries | GB/s read | GB | build, s |"]
        lines.append("|---|" + "---:|" * 6)
        for row in sorted(rows, key=lambda row: row["one_query_ms"]):
            speed = f"{row['gb_per_second']:.1f}" if row["gb_per_second"] else ""
            times = f"{row['one_query_ms']:.2f} | {row['batch_ms']:.0f}"
            cells = f"{row['recall']:.3f} | {times} | {speed} | {row['bytes'] / 1e9:.2f} | {row['build_seconds']:.0f}"
            lines.append(f"| {row['engine']} | {cells} |")
        copied = max(row["copy_gb_per_second"] for row in rows)
        lines += ["", f"The machine copied memory at up to {copied:.1f} GB/s (read and written) in these runs."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def search_queries(result: Row) -> str:
    """Milliseconds per query, one line per corpus; extrapolated ones in brackets."""
    names = ("teacher", "cached teacher", "Rabtriever", "bi-encoder", "bi-encoder, bare query")
    heads = (
        "teacher",
        "teacher, cached prefixes",
        "Rabtriever",
        "bi-encoder, as many tokens",
        "bi-encoder, bare query",
    )
    lines = [f"| ms per query | {' | '.join(heads)} | teacher / Rabtriever | Rabtriever / bi-encoder |"]
    lines.append("|---|" + "---:|" * (len(names) + 2))
    for row in result["rows"]:
        cells = []
        for name in names:
            timed = row["milliseconds"].get(name)
            cells.append(f"{timed:,.1f}" if timed is not None else f"({row['estimated'][name]:,.0f})")
        against = row["against_rabtriever"]
        cells += [
            f"{against['teacher'][0]:,.1f}" if "teacher" in against else "",
            f"{1 / against['bi-encoder'][0]:.2f}",
        ]
        lines.append(f"| {row['documents']:,} documents of {row['document_tokens']} tokens | {' | '.join(cells)} |")
    return "\n".join(lines)


def search_students(result: Row) -> str:
    """One line per student beside the teacher, then the cost model against what was measured."""
    lines = ["| student | parameters | ms per query | the teacher | times faster |", "|---|---:|---:|---:|---:|"]
    checks = ["| encoding, model against this machine | parameters | predicted | measured | ratio |"]
    checks.append("|---|---:|---:|---:|---:|")
    for row in result["rows"]:
        name = f"{row['student']} | {row['parameters'] / 1e6:,.1f}M"
        low, high = row["interval"]
        if row["what"] == "query":
            times = f"{row['milliseconds']:,.1f} | {row['teacher_milliseconds']:,.1f}"
            lines.append(f"| {name} | {times} | {row['times_faster']:.1f} [{low:.1f}, {high:.1f}] |")
        else:
            times = f"{row['predicted']:,.2f} s | {row['measured']:,.2f} s"
            checks.append(f"| {name} | {times} | {row['ratio']:.2f} [{low:.2f}, {high:.2f}] |")
    return "\n".join([*lines, "", *checks])


def search_encoding(result: Row) -> str:
    """Tokens per second, medians over rounds."""
    labels = {
        "Rabtriever": "`RabtrieverModel.encode_document`, text to vectors",
        "sentence-transformers": "sentence-transformers `encode`, text to vectors",
        "bare": "the backbone alone, token ids without padding",
    }
    lines = ["| encoding, 10.6M parameters | tokens/s | Rabtriever against it |", "|---|---:|---:|"]
    speeds = {name: [row["tokens_per_second"][name] for row in result["rows"]] for name in labels}
    for name, label in labels.items():
        ratio = float(np.median([a / b for a, b in zip(speeds["Rabtriever"], speeds[name], strict=True)]))
        lines.append(f"| {label} | {np.median(speeds[name]):,.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def search_length(result: Row) -> str:
    """Milliseconds by length of the documents."""
    rows: Sequence[Row] = result["rows"]
    labels = {
        "offline": "encoding a document, once",
        "Rabtriever": "a query over 64 documents: Rabtriever",
        "cached teacher": "the same, teacher with cached prefixes",
        "teacher": "the same, teacher",
    }
    lines = [f"| ms, documents of so many tokens | {' | '.join(str(row['tokens']) for row in rows)} |"]
    lines.append("|---|" + "---:|" * len(rows))
    for name, label in labels.items():
        cells = [f"{row['milliseconds'][name]:,.1f}" for row in rows]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def search_memory(result: Row) -> str:
    """One line."""
    (row,) = result["rows"]
    source, written = row["source_bytes"] / 1e9, row["vector_bytes"] / 1e9
    return (
        f"{row['documents']:,} documents of {row['tokens_per_document']:.0f} tokens, {source:.2f} GB of JSON lines -> "
        f"{written:.2f} GB of {row['vectors']} vectors (k = {row['embedding_dim']}): {row['seconds']:,.0f} s, "
        f"peak memory {row['peak_gb_over_model']:.2f} GB over the loaded model."
    )


def search_cost(result: Row) -> str:
    """The plan for 10^8 documents, and the checks of the model behind it."""
    settings = result["settings"]
    lines = [
        f"| {settings['documents']:,} documents of {settings['tokens']} tokens | k | GPU hours | hours on "
        f"{settings['gpus']} GPUs | GB fp32 | fp16 | int8 | GPUs that hold fp16 | ms per exact query on them |",
        "|---|" + "---:|" * 8,
    ]
    for row in result["rows"]:
        if row["what"] == "plan":
            sizes = " | ".join(f"{row['vector_gigabytes'][kind]:,.0f}" for kind in ("float32", "float16", "int8"))
            times = f"{row['gpu_hours']:,.1f} | {row['hours_on_all_gpus']:.2f}"
            held = f"{row['gpus_that_hold_float16']} | {row['milliseconds_per_query']:.0f}"
            lines.append(f"| {row['backbone']} | {row['k']} | {times} | {sizes} | {held} |")
    lines += ["", "| the model against this machine | predicted | measured | ratio |", "|---|---:|---:|---:|"]
    for row in result["rows"]:
        if row["what"] != "plan":
            values = " | ".join(f"{row[name]:,.1f} {row['unit']}" for name in ("predicted", "measured"))
            lines.append(f"| {row['what']} | {values} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def search_hybrid(result: Row) -> str:
    """One line per set and system; the best nDCG@10 of a set is bold, so that a set where words alone win shows it."""
    lines = ["| set | system | R@1 | nDCG@10 | R@100 | p against hybrid | n |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in result["rows"]:
        best = max(row["systems"], key=lambda system: row["systems"][system]["ndcg@10"]["mean"])
        for system, metrics in row["systems"].items():
            cells = [mean_interval([metrics[name]]) for name in ("success@1", "ndcg@10", "recall@100")]
            cells[1] = f"**{cells[1]}**" if system == best else cells[1]
            p = row["p_against_hybrid"].get(system)
            label = f"{system} ({row['share_from_dev']})" if "dev" in system else system
            shown = "" if p is None else f"{p:.4f}"
            lines.append(f"| {row['set']} | {label} | {' | '.join(cells)} | {shown} | {row['n']:,} |")
        shares = {name: f"{100 * share:.0f}%" for name, share in row["queries"].items()}
        more, fewer = shares["words above student"], shares["student above words"]
        lines.append(f"| {row['set']} | words alone above the student for {more} of queries, below for {fewer} |||||")
    return "\n".join(lines)


def search_dimensions(result: Row) -> str:
    """One table per set."""
    parts = []
    for name in dict.fromkeys(row["set"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["set"] == name]
        head = f"{name}: {rows[0]['documents']:,} documents, k = {rows[0]['k']}, n = {rows[0]['n']:,}"
        lines = [f"| {head} | bytes | R@1 | nDCG@10 | exact top 10 kept | ms |", "|---|" + "---:|" * 5]
        for row in rows:
            cells = [mean_interval([row[metric]]) for metric in ("success@1", "ndcg@10")]
            cells.append(f"{row['top 10 kept']['mean']:.3f}")
            lines.append(f"| {row['way']} | {row['bytes']:,.0f} | {' | '.join(cells)} | {row['milliseconds']:.2f} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


TABLES: dict[str, Callable[[Row], str]] = {
    "search_stores": search_stores,
    "search_queries": search_queries,
    "search_students": search_students,
    "search_encoding": search_encoding,
    "search_length": search_length,
    "search_memory": search_memory,
    "search_cost": search_cost,
    "search_hybrid": search_hybrid,
    "search_dimensions": search_dimensions,
}
