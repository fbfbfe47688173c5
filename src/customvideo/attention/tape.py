"""Recording what chosen words are attended from, beside an untouched attention kernel.

`watch` hooks the projections of the chosen sites and keeps the very queries and keys that the
fused kernel computes; `Tape.maps` forms the softmax from them, for the chosen words only. No
processor is replaced and nothing is projected twice. What the maps are compared with is
`customvideo.attention.losses`.

The maps are formed at the first read rather than inside the forward: the hooks then put nothing
into the graph, so torch.utils.checkpoint re-runs exactly the forward it saw, whether or not the
hooks are still in place, and sites of one shape are done in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from customvideo.attention.site import AttentionSite
from customvideo.errors import AttentionError

__all__ = ["Tape", "watch"]


@contextmanager
def watch(denoiser: nn.Module, sites: Sequence[AttentionSite], words: Tensor) -> Iterator[Tape]:
    """Record, at `sites`, the attention that the next forward of `denoiser` pays to some words.

    Args:
        denoiser: the module that the sites' paths start from.
        sites: where to record; all of kind "cross".
        words: float (row, word, token): for each row of the forward, the weight of each text
            token in each word. 1/n at the n tokens of a word; all 0 for a word not mentioned.

    Yields:
        the tape, which can also be read after the context has ended. All hooks are gone then,
        also after an exception.

    Raises:
        AttentionError: a path leads to no attention module, or a site is of another kind.
    """
    tape = Tape(sites, words)
    with ExitStack() as hooks:
        for site in sites:
            _hook(denoiser, site, tape, hooks)
        yield tape


class Tape:
    """The queries and keys of one forward, and the maps made of them."""

    def __init__(self, sites: Sequence[AttentionSite], words: Tensor) -> None:
        """Made by `watch`, which explains the arguments."""
        self._sites = {site.path: site for site in sites}
        self._words = words
        self._caught: dict[tuple[str, str], Tensor] = {}
        self._maps: dict[str, Tensor] | None = None
        self._paused = False

    def maps(self, *, require_grad: bool = False) -> dict[str, Tensor]:
        """Site path -> float32 map (row, word, frame, height, width) of the recorded forward.

        A map is the mean over heads of softmax(q k^T / sqrt(d)) over all tokens, at the word's
        tokens (their weighted mean). The first read seals the tape: later forwards are not
        recorded and later reads return the same maps, until `clear`.

        Raises:
            AttentionError: a site was not reached, did not get what its grid says, or, with
                `require_grad`, its map would carry no gradient.
        """
        if self._maps is None:
            self._maps = self._read()
            self._caught.clear()
        for path, recorded in self._maps.items():
            if require_grad and not recorded.requires_grad:
                raise AttentionError(
                    f"The attention map of '{path}' carries no gradient, so its loss would train "
                    "nothing; leave torch.no_grad, and checkpoint with use_reentrant=False."
                )
        return dict(self._maps)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run forwards that are not to be recorded, such as those on class-prior rows."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def clear(self) -> None:
        """Forget what was recorded, so that the next forward is recorded instead."""
        self._caught.clear()
        self._maps = None

    def catch(self, path: str, part: str, output: Tensor) -> None:
        """Keep the queries or keys ("q" or "k") of one site; called by the hooks of `watch`."""
        if self.idle:
            return
        if (path, part) in self._caught:
            raise AttentionError(
                f"'{path}' ran twice before its attention map was read; read the maps, clear the "
                "tape, or pause it around the forward that does not count."
            )
        self._caught[path, part] = output

    @property
    def idle(self) -> bool:
        """Whether a forward that runs now is not recorded."""
        # During backward, torch.utils.checkpoint repeats a forward that was already recorded.
        repeated = torch._C._current_graph_task_id() != -1
        return self._paused or self._maps is not None or repeated

    def _read(self) -> dict[str, Tensor]:
        groups: dict[object, list[tuple[AttentionSite, Tensor, Tensor]]] = {}
        for path, site in self._sites.items():
            query, key = self._pair(path)
            kind = (site.grid, site.heads, query.shape, key.shape, query.dtype)
            groups.setdefault(kind, []).append((site, query, key))
        maps: dict[str, Tensor] = {}
        for group in groups.values():
            sites, queries, keys = zip(*group, strict=True)
            stacked = _word_maps(sites[0], torch.stack(queries), torch.stack(keys), self._words)
            maps |= zip((site.path for site in sites), stacked.unbind(), strict=True)
        return {path: maps[path] for path in self._sites}

    def _pair(self, path: str) -> tuple[Tensor, Tensor]:
        """One site's queries (row or row*frame, position, channel) and keys (…, token, channel)."""
        query, key = (self._caught.get((path, part)) for part in ("q", "k"))
        if query is None or key is None:
            raise AttentionError(
                f"The attention site '{path}' recorded nothing; run the denoiser inside the watch, "
                "with unfused projections, and name only sites that it reaches."
            )
        site = self._sites[path]
        query, key = _merge_heads(query, site.heads), _merge_heads(key, site.heads)
        _check_shapes(site, query, key, self._words)
        return query, key


def _hook(denoiser: nn.Module, site: AttentionSite, tape: Tape, hooks: ExitStack) -> None:
    """Attach the hooks of one site; `hooks` removes them."""
    attention = _attention_module(denoiser, site)
    removable = [attention.register_forward_pre_hook(_mask_guard(site, tape), with_kwargs=True)]
    for part in ("q", "k"):
        # What the kernel gets is the normalised projection where the model normalises it.
        module = getattr(attention, f"norm_{part}", None) or getattr(attention, f"to_{part}")
        removable.append(module.register_forward_hook(_catcher(tape, site.path, part)))
    for handle in removable:
        hooks.callback(handle.remove)


def _attention_module(denoiser: nn.Module, site: AttentionSite) -> nn.Module:
    if site.kind != "cross":
        raise AttentionError(
            f"'{site.path}' attends to text and video jointly, which cannot be recorded yet; "
            "choose sites of kind 'cross'."
        )
    try:
        attention = denoiser.get_submodule(site.path)
    except AttributeError:
        attention = None
    if not all(isinstance(getattr(attention, name, None), nn.Module) for name in ("to_q", "to_k")):
        raise AttentionError(
            f"The denoiser has no attention module '{site.path}'; take the sites from its own "
            "backbone."
        )
    assert attention is not None
    return attention


def _catcher(tape: Tape, path: str, part: str) -> Any:
    def keep(_module: nn.Module, _args: object, output: Tensor) -> None:
        tape.catch(path, part, output)

    return keep


def _mask_guard(site: AttentionSite, tape: Tape) -> Any:
    def refuse(_module: nn.Module, _args: object, kwargs: Mapping[str, object]) -> None:
        if kwargs.get("attention_mask") is not None and not tape.idle:
            raise AttentionError(
                f"'{site.path}' hides text tokens with an attention mask, which its recorded map "
                "would ignore; run the denoiser without one."
            )

    return refuse


def _merge_heads(projected: Tensor, heads: int) -> Tensor:
    """(batch, position, channel), also from either layout with a separate head axis."""
    if projected.ndim == 4:
        if projected.shape[1] == heads:
            projected = projected.transpose(1, 2)
        return projected.flatten(2)
    return projected


def _check_shapes(site: AttentionSite, query: Tensor, key: Tensor, words: Tensor) -> None:
    rows, _, tokens = words.shape
    frames, height, width = site.grid
    cells = height * width
    queries = {(rows * frames, cells), (rows, frames * cells)}
    keys = {(rows * frames, tokens), (rows, tokens)}
    if tuple(query.shape[:2]) in queries and tuple(key.shape[:2]) in keys:
        return
    raise AttentionError(
        f"'{site.path}' got queries {tuple(query.shape[:2])} and keys {tuple(key.shape[:2])}, "
        f"which do not fit {rows} rows of {frames} frames, {height}x{width} positions and {tokens} "
        "text tokens; ask the backbone for the sites of this very size."
    )


def _word_maps(site: AttentionSite, query: Tensor, key: Tensor, words: Tensor) -> Tensor:
    """The maps of several sites alike, (site, row, word, frame, height, width).

    `query` is (site, row or row*frame, position, channel), `key` (site, …, token, channel) and
    `words` (row, word, token).
    """
    frames, height, width = site.grid
    rows = words.shape[0]
    # The text may be repeated for every frame: row-major, so that positions regroup with it.
    batch = key.shape[1]
    weights = words.to(query.device, torch.float32).repeat_interleave(batch // rows, dim=0)
    with torch.autocast(query.device.type, enabled=False):
        split = (site.heads, query.shape[-1] // site.heads)
        # (site, batch, head, position or token, channel of head)
        q = query.float().reshape(len(query), batch, -1, *split).transpose(2, 3)
        k = key.float().reshape(len(key), batch, -1, *split).transpose(2, 3)
        scores = (q * split[1] ** -0.5) @ k.transpose(-1, -2)
        # (site, batch, head, position, word) -> mean over heads
        found = (scores.softmax(dim=-1) @ weights.transpose(1, 2)[:, None]).mean(dim=2)
    maps: Tensor = found.reshape(len(query), rows, frames, height, width, -1).movedim(-1, 2)
    return maps
