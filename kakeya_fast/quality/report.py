"""A quality report: every passage's sums, the pooled figures, and all that is needed to redo it."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kakeya_fast.quality import stats
from kakeya_fast.quality.models import Loaded
from kakeya_fast.quality.protocol import Options, Score
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.texts import Text
from kakeya_ref.layout import page_layout

FORMAT = "kakeya-quality/1"
PROTOCOL = (
    "In-forward and teacher-forced: the passage runs through the model in chunks, every packed "
    "layer reads what the codec returned for every completed page; sinks and the unfilled page "
    "are exact. Compared with the same model on the uncompressed cache, same passages, same "
    "chunks. KL(base||packed) in nats and the signed change of NLL per token, from the warm-up on; "
    "95 % intervals by bootstrap over passages, widened for their small number. Bytes are the "
    "cache's own count of what it keeps at the end of a passage: pages, sinks and unfilled pages."
)
SNAPSHOT = (
    "Settings marked protocol=snapshot: the coded layers store the keys and values of the clean "
    "forward of the same tokens (after the rotary embedding) instead of the live ones; queries, "
    "exact layers and sliding layers are live."
)
COLUMNS = ("setting", "passage", "start", "tokens", "base_nll", "dnll", "kl", "agree")
LIBRARIES = ("kakeya-kv", "torch", "transformers", "numpy", "numba")


@dataclass
class Report:
    """Result of a run, growing passage by passage."""

    ctx: int
    passages: int
    options: Options
    model: dict[str, Any]
    text: dict[str, Any]
    settings: list[Setting]
    scores: list[Score] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        loaded: Loaded,
        text: Text,
        tokens: int,
        settings: Sequence[Setting],
        ctx: int,
        passages: int,
        options: Options,
    ) -> Report:
        """An empty report that knows what will be run."""
        return cls(
            ctx,
            passages,
            options,
            describe_model(loaded),
            describe_text(text) | {"tokens": tokens},
            list(settings),
            environment=environment(),
        )

    def key(self) -> dict[str, Any]:
        """What must be equal for two runs to be parts of one."""
        return {
            "ctx": self.ctx,
            "passages": self.passages,
            "options": asdict(self.options),
            "model": self.model["sha256"],
            "text": self.text["sha256"],
            "metrics": [m["sha256"] for m in self.metrics],
        }

    def summary(self) -> list[dict[str, Any]]:
        """Pooled figures of every setting that has scores, in the order asked for."""
        return [row for s in self.settings if (row := self._pool(s))]

    def _pool(self, setting: Setting) -> dict[str, Any] | None:
        scores = [s for s in self.scores if s.setting == str(setting)]
        if not scores:
            return None
        counts = [s.tokens for s in scores]
        dnll = stats.pooled([s.dnll for s in scores], counts)
        kl = stats.pooled([s.kl for s in scores], counts)
        top1 = stats.pooled([s.agree for s in scores], counts)
        base = sum(s.base_nll for s in scores) / sum(counts)
        page_tokens = setting.page_tokens(self.options.page_tokens)
        size = dict(scores[-1].sizes)
        bits = size.pop("page_bits", None)
        if not setting.tabled and not setting.plan:
            bits = _page_bits(setting, self.model["head_dims"], page_tokens)
        return {
            "setting": str(setting),
            "k": setting.k,
            "v": setting.v,
            "page_tokens": page_tokens,
            "passages": len(scores),
            "tokens": sum(counts),
            "page_bits": bits,
            **size,
            "base_ppl": math.exp(base),
            "dppl_percent": {
                "mean": _percent(dnll.mean),
                "low": _percent(dnll.low),
                "high": _percent(dnll.high),
            },
            "dnll": asdict(dnll),
            "kl": asdict(kl),
            "top1": asdict(top1),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; reading it back and pooling again gives the same figures."""
        return {
            "format": FORMAT,
            "protocol": {
                "description": self.protocol,
                "ctx": self.ctx,
                "passages": self.passages,
                **asdict(self.options),
                "bootstrap": {"level": stats.LEVEL, "draws": stats.DRAWS, "seed": stats.SEED},
            },
            "model": self.model,
            "text": self.text,
            **({"metrics": self.metrics} if self.metrics else {}),
            "environment": self.environment,
            "settings": [str(s) for s in self.settings],
            "summary": self.summary(),
            # Once per setting: passages of one length cost the same bytes, or, where tables are
            # fitted, nearly the same; then these are the last passage's.
            "sizes": {s.setting: s.sizes for s in self.scores},
            "columns": list(COLUMNS),
            "scores": [[getattr(s, c) for c in COLUMNS] for s in self.scores],
        }

    def write(self, path: Path) -> None:
        """The report as JSON, replaced atomically: a killed run leaves the last whole passage."""
        write_json(self.as_dict(), path)

    @property
    def protocol(self) -> str:
        """What was done, in words."""
        snapshot = any(s.protocol == "snapshot" for s in self.settings)
        return f"{PROTOCOL} {SNAPSHOT}" if snapshot else PROTOCOL

    def resume(self, path: Path, *, any_commit: bool = False) -> set[tuple[str, int]]:
        """Take over the scores of an earlier part of the same run.

        Scores of settings that are not asked for are left out. A part of another commit is not
        taken, unless it is the whole, or with ``any_commit``: then all commits are named.

        Returns
        -------
        Pairs of setting and passage that are done.
        """
        if not path.exists():
            return set()
        stored = json.loads(path.read_text("utf-8"))
        protocol = stored["protocol"]
        key = {
            "ctx": protocol["ctx"],
            "passages": protocol["passages"],
            "options": {name: protocol[name] for name in asdict(self.options)},
            "model": stored["model"]["sha256"],
            "text": stored["text"]["sha256"],
            "metrics": [m["sha256"] for m in stored.get("metrics", [])],
        }
        if key != self.key():
            return set()
        wanted = {str(s) for s in self.settings}
        rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["scores"]]
        rows = [row for row in rows if row["setting"] in wanted]
        done = {(row["setting"], row["passage"]) for row in rows}
        there, here = stored["environment"]["commit"], self.environment.get("commit")
        if len(done) == len(wanted) * self.passages:
            self.environment = stored["environment"]
        elif there != here and rows:
            # Passages of two commits are no single measurement, unless whoever runs it says so.
            if not any_commit:
                return set()
            both = dict.fromkeys([*str(there).split(", "), str(here)])
            self.environment["commit"] = ", ".join(both)
        self.scores = [Score(**row, sizes=stored["sizes"][row["setting"]]) for row in rows]
        return done


def describe_model(loaded: Loaded) -> dict[str, Any]:
    """Name, hash and the shape of the cache."""
    config = loaded.model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return {
        "name": loaded.name,
        "sha256": loaded.sha256,
        "dtype": loaded.dtype,
        "device": _device(loaded),
        "layers": config.num_hidden_layers,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dims": [head_dim],
        "layer_types": sorted(set(getattr(config, "layer_types", None) or ["full_attention"])),
    }


def _device(loaded: Loaded) -> str:
    """``cpu``, or what an accelerator calls itself."""
    import torch

    where = loaded.model.device
    return torch.cuda.get_device_name(where) if where.type == "cuda" else where.type


def describe_text(text: Text) -> dict[str, Any]:
    """Name, origin and hash."""
    return {"name": text.name, "description": text.description, "sha256": text.sha256}


def environment() -> dict[str, Any]:
    """Versions, commit and date."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **versions,
    }


def write_json(data: dict[str, Any], path: Path, digits: int | None = None) -> None:
    """JSON, complete or not at all; numbers as they are, or to so many digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    whole.write_text(_lines(_short(data, digits) if digits else data, 0) + "\n", "utf-8")
    os.replace(whole, path)


def _lines(data: Any, depth: int) -> str:
    """JSON with one line for every list or object that holds no other."""
    inner = list(data.values()) if isinstance(data, dict) else data
    if not isinstance(data, (dict, list)) or not any(isinstance(x, (dict, list)) for x in inner):
        return json.dumps(data, allow_nan=False)
    pad = "\n" + " " * (depth + 1)
    if isinstance(data, dict):
        items = [f"{json.dumps(k)}: {_lines(v, depth + 1)}" for k, v in data.items()]
    else:
        items = [_lines(v, depth + 1) for v in data]
    ends = "{}" if isinstance(data, dict) else "[]"
    return ends[0] + pad + ("," + pad).join(items) + "\n" + " " * depth + ends[1]


def _short(data: Any, digits: int) -> Any:
    """The same with numbers of so many digits."""
    if isinstance(data, float):
        return float(f"{data:.{digits}g}")
    if isinstance(data, dict):
        return {k: _short(v, digits) for k, v in data.items()}
    return [_short(v, digits) for v in data] if isinstance(data, list) else data


def _percent(nll: float | None) -> float | None:
    return None if nll is None else 100 * math.expm1(nll)


def _page_bits(setting: Setting, head_dims: list[int], page_tokens: int) -> float:
    layouts = [page_layout(c, d, page_tokens) for c in (setting.k, setting.v) for d in head_dims]
    return 8 * sum(x.nbytes for x in layouts) / sum(x.tokens * x.head_dim for x in layouts)


@cache
def _commit() -> str | None:
    # Once per process: what runs is what was imported, whatever is committed meanwhile.
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
