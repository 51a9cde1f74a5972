"""EncoderDecoder: from sequences to sequences of other lengths, with or without attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn import decoding
from fastrnn.checks import (
    check_choice,
    check_dtype,
    check_entries,
    check_flag,
    check_probability,
    check_seed,
    check_size,
    is_bfloat16,
)
from fastrnn.data import Examples, Ids, Pairs, Ragged, bucketed_minibatches
from fastrnn.data.pairs import id_sequences
from fastrnn.history import History
from fastrnn.layers.attention import DotAttention
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import CELLS
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.ragged import pack
from fastrnn.layers.recurrent import Recurrent
from fastrnn.model import Model
from fastrnn.parameter import Array
from fastrnn.summary import Row, print_summary


class EncoderDecoder(Model):
    """Sequences of ids to sequences of ids of other lengths (Sutskever et al. 2014; Cho et al.
    2014).

    Sources have ids from 0 to source_size - 1, at least one each; targets from 0 to
    target_size - 1, any number of them. The encoder, embedding and recurrent layers, reads a
    source, and its final state is what the decoder, likewise, starts from. The decoder is given the
    target so far and gives logits for its next id, of target_size + 1 classes: the last one, the
    id ``end``, is the model's own. It follows every target, and the decoder is given it before the
    first id, as in Sutskever et al.; users' sequences never hold it.

    - `cell`: "lstm", "gru" or "rnn"; `num_layers` of `hidden_size` in the encoder and in the
      decoder; `embedding_dim` for both embeddings.
    - `attention`: the decoder's outputs pass through `DotAttention` over the encoder's (Luong et
      al. 2015, without input feeding) on their way to the logits.
    - `dropout`: with this probability, in training, values between layers are zero: of the
      embeddings, between recurrent layers, and before the logits (Zaremba et al. 2014).
    - `dtype`: "float32", "float64" or, for inference, "bfloat16" (recurrent layers alone); `seed`
      of what weights start from and of dropout.

    `compile` and `evaluate` are `Model`'s, `fit` nearly; `decode` makes sequences. Parameters have
    the names of ``layers`` before their own: ``encoder.weight_ih_l0``. Raises TypeError or
    ValueError, naming the argument, for what does not fit.
    """

    takes_ids = True
    gives_logits = True
    takes_bfloat16 = True

    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        embedding_dim: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        cell: str = "lstm",
        attention: bool = False,
        dropout: float = 0.0,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.source_size = check_size(source_size, "source_size")
        self.target_size = self.end = check_size(target_size, "target_size")
        self.embedding_dim = check_size(embedding_dim, "embedding_dim")
        self.hidden_size = check_size(hidden_size, "hidden_size")
        self.num_layers = check_size(num_layers, "num_layers")
        self.cell = check_choice(cell, list(CELLS), "cell")
        self.attention = check_flag(attention, "attention")
        self.dropout = check_probability(dropout, "dropout")
        self.bfloat16 = is_bfloat16(dtype)
        self.dtype = check_dtype("float32" if self.bfloat16 else dtype)
        self.seed = check_seed(seed)
        classes = self.target_size + 1
        check_entries("source_size", (self.source_size, self.embedding_dim))
        check_entries("target_size", (classes, max(self.embedding_dim, self.hidden_size)))

        seeds = np.random.SeedSequence(self.seed).generate_state(7).tolist()
        between = self.dropout if self.num_layers > 1 else 0.0

        def embedding(size: int, seed: int) -> Embedding:
            return Embedding(size, self.embedding_dim, dtype=self.dtype, seed=seed)

        def recurrent(seed: int, return_sequences: bool = True) -> Recurrent:
            return CELLS[self.cell](
                self.embedding_dim, self.hidden_size, self.num_layers, dropout=between,
                return_sequences=return_sequences, dtype=dtype, seed=seed,
            )  # fmt: skip

        self._source = embedding(self.source_size, seeds[0])
        self._encoder = recurrent(seeds[1], return_sequences=self.attention)
        self._target = embedding(classes, seeds[2])
        self._decoder = recurrent(seeds[3])
        self._attention = (
            DotAttention(self.hidden_size, dtype=self.dtype, seed=seeds[4]) if attention else None
        )
        self._dropout = Dropout(self.dropout, seed=seeds[5]) if dropout else None
        self._output = Dense(self.hidden_size, classes, dtype=self.dtype, seed=seeds[6])
        found = {
            "source": self._source,
            "encoder": self._encoder,
            "target": self._target,
            "decoder": self._decoder,
            "attention": self._attention,
            "dropout": self._dropout,
            "output": self._output,
        }
        self.layers: dict[str, Layer] = {
            name: layer for name, layer in found.items() if layer is not None
        }
        self._parameters = {
            f"{place}.{name}": parameter
            for place, layer in self.layers.items()
            for name, parameter in layer.parameters().items()
        }

    # --- Training -------------------------------------------------------------------------------

    def pairs(self, sources: Any, targets: Any, lengths: Any = None) -> Pairs:
        """What `run` and `vjp` take: `sources` beside `end` and `targets`.

        sources, targets: lists of vectors of ids, or arrays (rows, time). lengths: how much of the
        rows of an array counts, (rows,); of the sources, or a tuple of the sources' and the
        targets', either of which may be None.
        """
        return self._framed(sources, targets, lengths, ("sources", "targets"))[0]

    def __call__(  # type: ignore[override]
        self, sources: Any, targets: Any, lengths: Any = None
    ) -> Array:
        """Logits (rows, longest target + 1, target_size + 1) of what follows `end` and each id of
        the targets; meaningless past a target's length. See `pairs` for what is taken.
        """
        return self.run(self.pairs(sources, targets, lengths))[0]

    def run(  # type: ignore[override]
        self, x: Pairs, state: None = None, lengths: None = None
    ) -> tuple[Array, None]:
        """Logits of `pairs`, for inference, as calling gives them; there is no state."""
        recurrent, memory, ends = self._encode(x.sources)
        inputs, steps = pack(x.inputs)
        y, _ = self._decoder(self._target(inputs), recurrent, steps)
        return self._logits(y, memory, ends), None

    def vjp(  # type: ignore[override]
        self, x: Pairs, state: None = None, lengths: None = None
    ) -> tuple[tuple[Array, None], Callable[[Array], None]]:
        """``((logits, None), pullback)`` of `pairs`, for training; dropout is active.

        ``pullback(dlogits)`` adds to the parameters' gradients. It may be called once.
        """
        sources, ends = pack(x.sources)
        inputs, steps = pack(x.inputs)
        embedded, source_pullback = self._source.vjp(sources)
        embedded, source_dropped = self._drop(embedded)
        (memory, recurrent), encoder_pullback = self._encoder.vjp(embedded, lengths=ends)
        embedded, target_pullback = self._target.vjp(inputs)
        embedded, target_dropped = self._drop(embedded)
        (y, _), decoder_pullback = self._decoder.vjp(embedded, recurrent, steps)
        attention = self._attention
        if attention is not None:
            y, attention_pullback = attention.vjp(y, memory, ends)
        y, output_dropped = self._drop(y)
        logits, output_pullback = self._output.vjp(y)

        def pullback(dlogits: Array) -> None:
            dy, dmemory = output_dropped(output_pullback(dlogits)), None
            if attention is not None:
                dy, dmemory = attention_pullback(dy)
            dembedded, dstate = decoder_pullback(dy)
            target_pullback(target_dropped(dembedded))
            dembedded, _ = encoder_pullback(dmemory, dstate, with_dstate=False)
            source_pullback(source_dropped(dembedded))

        return (logits, None), pullback

    def fit(self, x: Any, y: Any = None, **options: Any) -> History:
        """Train on sources `x` and targets `y`; returns the losses and metrics of every epoch.

        They are lists of vectors of ids, of any lengths, or arrays (rows, time) with ``lengths=``
        as `pairs` takes them (`validation_lengths` likewise); or x is an iterable of batches
        ``(x, y)``. The decoder is given the targets themselves as what it has made so far (teacher
        forcing). The end of each target counts in loss and metrics, padding does not. Rows whose
        targets have similar lengths make a batch. The other options are those of `Model.fit`, but
        for `tbptt`, and `sample_weight` is (rows,).
        """
        if options.get("tbptt") is not None:
            raise ValueError("tbptt: expected None: a source and its target are not cut in windows")
        return super().fit(x, y, **options)

    def _examples(self, x: Any, y: Any, lengths: Any, sample_weight: ArrayLike | None) -> Examples:
        pairs, targets = self._framed(x, y, lengths, ("x", "y"))
        weights = None if sample_weight is None else np.asarray(sample_weight)
        if weights is not None and weights.shape != (len(pairs),):
            raise ValueError(f"sample_weight: expected ({len(pairs)},), got {weights.shape}")
        return Examples(pairs, targets, sample_weight=weights)

    def _framed(
        self, sources: Any, targets: Any, lengths: Any, names: tuple[str, str]
    ) -> tuple[Pairs, Ragged]:
        """Sources beside end and targets; and, a step on, targets and end."""
        both = lengths if isinstance(lengths, tuple) else (lengths, None)
        if len(both) != 2:
            raise ValueError(
                f"lengths: expected those of {names[0]}, or a tuple of {names[0]}'s and "
                f"{names[1]}'s, got a tuple of {len(both)}"
            )
        read = id_sequences(sources, self.source_size, names[0], both[0], shortest=1)
        wanted = id_sequences(targets, self.target_size, names[1], both[1])
        if len(wanted) != len(read):
            raise ValueError(
                f"{names[1]}: expected {len(read)} sequences as {names[0]} has, got {len(wanted)}"
            )
        end = np.array([self.end])
        framed = [np.concatenate([end, row, end]) for row in wanted]
        return Pairs(read, [row[:-1] for row in framed]), Ragged([row[1:] for row in framed])

    def _encode(self, sources: list[NDArray[np.int64]]) -> tuple[Any, Array, NDArray[np.int64]]:
        """The final state, the outputs and the lengths of sources, for inference."""
        x, lengths = pack(sources)
        memory, state = self._encoder(self._source(x), lengths=lengths)
        return state, memory, lengths

    def _logits(self, y: Array, memory: Array, lengths: NDArray[np.int64]) -> Array:
        """Of what the decoder gives, (rows, steps, hidden_size)."""
        return self._output(y if self._attention is None else self._attention(y, memory, lengths))

    def _drop(self, x: Array) -> tuple[Array, Callable[[Array], Array]]:
        return (x, lambda dx: dx) if self._dropout is None else self._dropout.vjp(x)

    # --- Decoding -------------------------------------------------------------------------------

    def decode(
        self,
        sources: Any,
        max_steps: int,
        beam_size: int = 1,
        length_penalty: float = 0.0,
        *,
        batch_size: int = 32,
        lengths: ArrayLike | None = None,
    ) -> list[Ids]:
        """The target that the model makes of each source: a vector of at most `max_steps` ids.

        sources: as `pairs` takes them, with their `lengths`. With a `beam_size` of 1 each id is the
        likeliest after those before it (`decoding.greedy`); with a larger one that many sequences
        are carried on side by side, and the best by log-probability and `length_penalty`, from 0
        to 30, is taken (`decoding.beam_search`). Sources are decoded `batch_size` at a time, those
        of similar lengths together, which does not change what they give.
        """
        steps = check_size(max_steps, "max_steps")
        beam = check_size(beam_size, "beam_size")
        expected = f"length_penalty: expected a number from 0 to 30, got {length_penalty!r}"
        if isinstance(length_penalty, bool) or not isinstance(
            length_penalty, int | float | np.number
        ):
            raise TypeError(expected)
        if not 0.0 <= length_penalty <= 30.0:
            raise ValueError(expected)
        rows = Ragged(id_sequences(sources, self.source_size, "sources", lengths, shortest=1))
        found: list[Ids] = [np.empty(0, np.int64)] * len(rows)
        for batch in bucketed_minibatches(rows.lengths, batch_size):
            decoder = _Decoder(self, *self._encode([rows.sequences[row] for row in batch]))
            if beam == 1:
                made = decoding.greedy(decoder, len(batch), self.end, steps)
            else:
                made = decoding.beam_search(
                    decoder, len(batch), self.end, steps, beam, float(length_penalty)
                )
            for row, ids in zip(batch, made, strict=True):
                found[row] = ids
        return found

    def predict(
        self, x: Any, batch_size: int = 32, *, lengths: ArrayLike | None = None
    ) -> NoReturn:
        """Raises TypeError: see `decode`."""
        raise TypeError(
            "predict: an EncoderDecoder makes sequences; call decode(sources, max_steps)"
        )

    # --- Description ----------------------------------------------------------------------------

    def random_state(self) -> dict[str, Any]:
        return {name: layer.random_state() for name, layer in self.layers.items()}

    def set_random_state(self, state: Any) -> None:
        for name, layer in self.layers.items():
            layer.set_random_state(state[name])

    def config(self) -> dict[str, Any]:
        return {
            "source_size": self.source_size,
            "target_size": self.target_size,
            "embedding_dim": self.embedding_dim,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "cell": self.cell,
            "attention": self.attention,
            "dropout": self.dropout,
            "dtype": "bfloat16" if self.bfloat16 else self.dtype.name,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderDecoder:
        """A model as `config` describes it, freshly initialised."""
        return cls(**{name: value for name, value in config.items() if name != "kind"})

    def summary(self) -> None:
        """Print a table of the layers: output shapes (None: any size) and parameters."""
        rows: list[Row] = []
        shape: tuple[int | None, ...] = (None, None)
        for name, layer in self.layers.items():
            shape = layer.output_shape((None, None) if name in ("source", "target") else shape)
            rows.append((name, layer, shape))
        print_summary("EncoderDecoder", rows, self._parameters)


class _Decoder:
    """The hypotheses of some sources: see `decoding.Decoder`."""

    def __init__(
        self, model: EncoderDecoder, state: Any, memory: Array, lengths: NDArray[np.int64]
    ) -> None:
        self._model = model
        self._state = state  # (num_layers, rows * width, hidden_size), of an LSTM two of them
        self._memory = memory
        self._lengths = lengths

    def step(self, ids: NDArray[np.int64]) -> Array:
        model = self._model
        y, self._state = model._decoder.step(model._target(ids.reshape(-1)), self._state)
        return model._logits(y.reshape(*ids.shape, -1), self._memory, self._lengths)

    def keep(self, rows: NDArray[np.int64], hypotheses: NDArray[np.int64]) -> None:
        state, before = self._state, len(self._lengths)
        parts = state if isinstance(state, tuple) else (state,)
        width = parts[0].shape[1] // before
        places = (rows[:, None] * width + hypotheses).reshape(-1)
        parts = tuple(np.take(part, places, axis=1) for part in parts)
        self._state = parts if isinstance(state, tuple) else parts[0]
        if len(rows) < before:
            self._memory, self._lengths = self._memory[rows], self._lengths[rows]
