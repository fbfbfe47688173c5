"""Recording what chosen words are attended from, beside an untouched attention kernel.

`watch` keeps the very queries and keys that the fused kernel gets at the chosen sites; `Tape.maps`
forms the softmax from them, for the chosen words only. No processor is replaced and nothing is
projected twice. At a site of kind "cross" they are caught where they are projected; at one of kind
"joint", where positions are turned (RoPE) and video and text are joined in between, at the kernel's
door. What the maps are compared with is `customvideo.attention.losses`.

The maps are formed at the first read rather than inside the forward: the hooks then put nothing
into the graph, so torch.utils.checkpoint re-runs exactly the forward it saw, whether or not the
hooks are still in place, and sites of one shape are done in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from customvideo.attention.site import AttentionSite
from customvideo.errors import AttentionError

__all__ = ["Tape", "watch"]


@contextmanager
def watch(
    denoiser: nn.Module,
    sites: Sequence[AttentionSite],
    words: Tensor,
    real: Tensor | None = None,
) -> Iterator[Tape]:
    """Record, at `sites`, the attention that the next forward of `denoiser` pays to some words.

    Args:
        denoiser: the module that the sites' paths start from.
        sites: where to record.
        words: float (row, word, token): for each row of the forward, the weight of each text
            token in each word. 1/n at the n tokens of a word; all 0 for a word not mentioned.
        real: bool (row, token), `TextStates.real`: at sites of kind "cross" what attention goes to
            other tokens is left out of the maps, whose tokens share the rest. Hundreds of paddings
            that a model reads like text would leave a word next to nothing.

    Yields:
        the tape, which can also be read after the context has ended. All hooks are gone then,
        also after an exception.

    Raises:
        AttentionError: a path leads to no attention module.
    """
    tape = Tape(sites, words, real)
    with ExitStack() as hooks:
        for site in sites:
            _hook(denoiser, site, tape, hooks)
        yield tape


class Tape:
    """The queries and keys of one forward, and the maps made of them."""

    def __init__(
        self, sites: Sequence[AttentionSite], words: Tensor, real: Tensor | None = None
    ) -> None:
        """Made by `watch`, which explains the arguments."""
        self._sites = {site.path: site for site in sites}
        self._words, self.real = words, real
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
        """Keep the queries, the keys or the mask ("q", "k", "mask") of one site; called by the
        hooks of `watch`."""
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
        maps: dict[str, Tensor] = {}
        for path, site in self._sites.items():
            query, key = self._pair(path)
            if site.kind == "joint":
                mask = self._caught.get((path, "mask"))
                maps[path] = _joint_maps(site, query, key, mask, self._words)
                continue
            kind = (site.grid, site.heads, query.shape, key.shape, query.dtype)
            groups.setdefault(kind, []).append((site, query, key))
        for group in groups.values():
            sites, queries, keys = zip(*group, strict=True)
            stacked = _word_maps(
                sites[0], torch.stack(queries), torch.stack(keys), self._words, self.real
            )
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
        if site.kind == "joint":
            _check_joint(site, query, key, self._words)
            return query, key
        query, key = _merge_heads(query, site.heads), _merge_heads(key, site.heads)
        _check_shapes(site, query, key, self._words)
        return query, key


def _hook(denoiser: nn.Module, site: AttentionSite, tape: Tape, hooks: ExitStack) -> None:
    """Attach the hooks of one site; `hooks` removes them."""
    attention = _attention_module(denoiser, site)
    if site.kind == "joint":
        _hook_kernel(attention, site.path, tape, hooks)
        return
    removable = [attention.register_forward_pre_hook(_mask_guard(site, tape), with_kwargs=True)]
    for part in ("q", "k"):
        # What the kernel gets is the normalised projection where the model normalises it.
        module = getattr(attention, f"norm_{part}", None) or getattr(attention, f"to_{part}")
        removable.append(module.register_forward_hook(_catcher(tape, site.path, part)))
    for handle in removable:
        hooks.callback(handle.remove)


def _attention_module(denoiser: nn.Module, site: AttentionSite) -> nn.Module:
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
        if kwargs.get("attention_mask") is not None and tape.real is None and not tape.idle:
            raise AttentionError(
                f"'{site.path}' hides text tokens with an attention mask, which its recorded map "
                "would ignore; tell the watch which tokens are real, or run the denoiser without."
            )

    return refuse


def _hook_kernel(attention: nn.Module, path: str, tape: Tape, hooks: ExitStack) -> None:
    """Listen at the attention kernel while `attention` runs, and only then."""
    listening = ExitStack()

    def start(_module: nn.Module, _args: object) -> None:
        if not tape.idle:
            listening.enter_context(_Listener(lambda part, value: tape.catch(path, part, value)))

    def stop(_module: nn.Module, _args: object, _output: object) -> None:
        listening.close()

    hooks.callback(attention.register_forward_pre_hook(start).remove)
    # Also after an exception, or the listener would stay.
    hooks.callback(attention.register_forward_hook(stop, always_call=True).remove)


class _Listener(TorchFunctionMode):
    """Passes on what the kernel is given: (row, head, position, channel) each, and its mask."""

    def __init__(self, catch: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self._catch = catch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask")
            given = dict(zip(names, args, strict=False)) | kwargs
            self._catch("q", given["query"])
            self._catch("k", given["key"])
            if given.get("attn_mask") is not None:
                self._catch("mask", given["attn_mask"])
        return func(*args, **kwargs)


def _check_joint(site: AttentionSite, query: Tensor, key: Tensor, words: Tensor) -> None:
    rows, _, tokens = words.shape
    frames, height, width = site.grid
    wanted = (rows, site.heads, tokens + frames * height * width)
    if tuple(query.shape[:3]) != wanted or tuple(key.shape[:3]) != wanted:
        raise AttentionError(
            f"'{site.path}' got queries {tuple(query.shape[:3])} and keys {tuple(key.shape[:3])}, "
            f"which do not fit {rows} rows of {site.heads} heads, {tokens} text tokens and "
            f"{frames} frames of {height}x{width} positions; ask the backbone for the sites of "
            "this very size."
        )


def _joint_maps(
    site: AttentionSite, query: Tensor, key: Tensor, mask: Tensor | None, words: Tensor
) -> Tensor:
    """The maps of a joint site (row, word, frame, height, width): what video positions pay to
    words, out of what they pay to all of text and video."""
    rows, _, tokens = words.shape
    cells = query.shape[2] - tokens
    start = tokens if site.text_first else 0
    first = 0 if site.text_first else cells
    weights = words.to(query.device, torch.float32)
    found = []
    with torch.autocast(query.device.type, enabled=False):
        # Head by head: the scores of all at once would be many times the tape.
        for head in range(site.heads):
            q = query[:, head, start : start + cells].float() * query.shape[-1] ** -0.5
            scores = q @ key[:, head].float().transpose(-1, -2)
            if mask is not None:
                scores = _masked(scores, mask, head, slice(start, start + cells))
            text = scores.softmax(dim=-1)[..., first : first + tokens]
            found.append(text @ weights.transpose(1, 2))
    mean = torch.stack(found).mean(dim=0)
    return mean.reshape(rows, *site.grid, -1).movedim(-1, 1)


def _masked(scores: Tensor, mask: Tensor, head: int, positions: slice) -> Tensor:
    """`scores` (row, position, key) under an attention mask that broadcasts to (row, head,
    position, key): bool, True where a key may be read, or added."""
    mask = mask[None] if mask.ndim == 3 else mask
    mask = mask[:, head if mask.shape[1] > 1 else 0]
    mask = mask[:, positions] if mask.shape[1] > 1 else mask
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask.float()


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


def _word_maps(
    site: AttentionSite, query: Tensor, key: Tensor, words: Tensor, real: Tensor | None
) -> Tensor:
    """The maps of several sites alike, (site, row, word, frame, height, width).

    `query` is (site, row or row*frame, position, channel), `key` (site, …, token, channel),
    `words` (row, word, token) and `real` (row, token).
    """
    frames, height, width = site.grid
    rows = words.shape[0]
    # The text may be repeated for every frame: row-major, so that positions regroup with it.
    batch = key.shape[1]
    if real is not None:
        # What no row needs is left out before it makes the scores many times as large.
        used = real.any(dim=0)
        key, words = key[:, :, used.to(key.device)], words[..., used.to(words.device)]
        real = real[:, used]
    weights = words.to(query.device, torch.float32).repeat_interleave(batch // rows, dim=0)
    with torch.autocast(query.device.type, enabled=False):
        split = (site.heads, query.shape[-1] // site.heads)
        # (site, batch, head, position or token, channel of head)
        q = query.float().reshape(len(query), batch, -1, *split).transpose(2, 3)
        k = key.float().reshape(len(key), batch, -1, *split).transpose(2, 3)
        scores = (q * split[1] ** -0.5) @ k.transpose(-1, -2)
        if real is not None:
            hidden = ~real.to(query.device).repeat_interleave(batch // rows, dim=0)
            scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
        # (site, batch, head, position, word) -> mean over heads
        found = (scores.softmax(dim=-1) @ weights.transpose(1, 2)[:, None]).mean(dim=2)
    maps: Tensor = found.reshape(len(query), rows, frames, height, width, -1).movedim(-1, 2)
    return maps
