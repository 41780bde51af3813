"""rnn and transformer against torch's own modules with the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import rnn, transformer

torch = pytest.importorskip("torch")


def output(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def numpy(tensor):
    return tensor.detach().cpu().numpy()


def set_cell(layer, module, suffix, cell, units):
    """Weights of a direction of torch's LSTM or GRU; the gates' order differs."""
    order = [0, 1, 2, 3] if cell == "lstm" else [1, 0, 2]
    parts = [getattr(module, f"{name}{suffix}") for name in ("weight_ih_l", "weight_hh_l")]
    kernels = [
        np.concatenate([numpy(part)[i * units : (i + 1) * units] for i in order]).T
        for part in parts
    ]
    biases = [
        np.concatenate(
            [numpy(getattr(module, f"{name}{suffix}"))[i * units : (i + 1) * units] for i in order]
        )
        for name in ("bias_ih_l", "bias_hh_l")
    ]
    bias = biases[0] + biases[1] if cell == "lstm" else np.stack(biases)
    layer.set_weights([*kernels, bias])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rnn_on_padded_texts_equals_torch_on_packed_ones(cell):
    units, lengths = 5, [7, 3, 1]
    model = rnn(
        cell, vocab_size=30, embedding_dim=4, hidden_dim=units, bidirectional=True, num_classes=0
    )
    torch.manual_seed(0)
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](
        4, units, batch_first=True, bidirectional=True
    ).cpu()
    wrapper = model.get_layer(f"layer0_{cell}")
    set_cell(wrapper.forward_layer, module, "0", cell, units)
    set_cell(wrapper.backward_layer, module, "0_reverse", cell, units)
    token_ids = np.random.default_rng(0).integers(1, 30, (3, 7))
    for row, length in enumerate(lengths):
        token_ids[row, length:] = 0
    table = keras.ops.convert_to_numpy(model.get_layer("token_embedding").embeddings)
    with torch.device("cpu"):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch.from_numpy(table[token_ids]), lengths, batch_first=True
        )
        state = module(packed)[1]
    state = state[0] if cell == "lstm" else state
    wanted = np.concatenate([numpy(state[0]), numpy(state[1])], axis=-1)
    np.testing.assert_allclose(output(model, token_ids), wanted, atol=2e-6)


def set_attention(layer, module, d, heads):
    weight, bias = numpy(module.in_proj_weight), numpy(module.in_proj_bias)
    dense = (layer.query_dense, layer.key_dense, layer.value_dense)
    for i, part in enumerate(dense):
        rows = slice(i * d, (i + 1) * d)
        part.set_weights([weight[rows].T.reshape(d, heads, -1), bias[rows].reshape(heads, -1)])
    out = module.out_proj
    layer.output_dense.set_weights([numpy(out.weight).T.reshape(heads, -1, d), numpy(out.bias)])


def set_dense(layer, module):
    layer.set_weights([numpy(module.weight).T, numpy(module.bias)])


def set_norm(layer, module):
    layer.set_weights([numpy(module.weight), numpy(module.bias)])


def test_transformer_equals_torch():
    d, heads, layers = 16, 2, 2
    torch.manual_seed(0)
    with torch.device("cpu"):
        module = torch.nn.Transformer(
            d, heads, layers, layers, 32, dropout=0.0, batch_first=True, norm_first=True
        ).eval()
    for parameter in module.parameters():  # biases and norms start at 0 and 1: nothing to compare
        torch.nn.init.normal_(parameter, std=0.3)
    model = transformer("tiny", kind="encoder_decoder", vocab_size=30, dropout=0)
    for side, stack in (("encoder", module.encoder), ("decoder", module.decoder)):
        for i, block in enumerate(stack.layers):
            name = f"{side}_layer{i}"
            set_attention(model.get_layer(f"{name}_attention"), block.self_attn, d, heads)
            norms = ["attention"]
            if side == "decoder":
                set_attention(model.get_layer(f"{name}_cross"), block.multihead_attn, d, heads)
                norms.append("cross")
            for j, norm in enumerate([*norms, "mlp"], start=1):
                set_norm(model.get_layer(f"{name}_{norm}_norm"), getattr(block, f"norm{j}"))
            set_dense(model.get_layer(f"{name}_mlp1"), block.linear1)
            set_dense(model.get_layer(f"{name}_mlp2"), block.linear2)
        set_norm(model.get_layer(f"{side}_norm"), stack.norm)
    rng = np.random.default_rng(0)
    source, target = rng.integers(1, 30, (2, 6)), rng.integers(1, 30, (2, 5))
    source[1, 3:] = 0
    parts = [model.get_layer(f"{side}_embedding_add").output for side in ("encoder", "decoder")]
    inner = keras.Model(model.input, [*parts, model.get_layer("decoder_norm").output])
    embedded = inner({"token_ids": source, "target_ids": target}, training=False)
    left, right, found = (keras.ops.convert_to_numpy(part) for part in embedded)
    with torch.device("cpu"):
        hidden = torch.from_numpy(source == 0)
        causal = torch.nn.Transformer.generate_square_subsequent_mask(5)
        wanted = module(
            torch.from_numpy(left.copy()), torch.from_numpy(right.copy()), tgt_mask=causal,
            src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
        )  # fmt: skip
    np.testing.assert_allclose(found, numpy(wanted), atol=2e-5)
    assert sum(p.numel() for p in torch.nn.Transformer(device="meta").parameters()) == 44_140_544
