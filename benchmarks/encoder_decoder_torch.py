"""The peer's side of the benchmark of the encoder-decoder, as workers of `interleaved`; jobs: train, decode.

The paper's sizes: 1,000 units, words of rank 100, 15,000 of them, 500 maxout units. The unit is PyTorch's GRU, which
sees the context beside each word; readout and Adadelta are the paper's. This file runs in an environment of its own.
"""

import torch
from interleaved import serve
from torch import nn

UNITS, RANK, WORDS, MAXOUT = 1000, 100, 15001, 500


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(WORDS, RANK), nn.Embedding(WORDS, RANK)
        self.encoder = nn.GRU(RANK, UNITS, batch_first=True)
        self.initial = nn.Linear(UNITS, UNITS)
        self.cell = nn.GRUCell(RANK + UNITS, UNITS)
        self.decoder = nn.GRU(RANK + UNITS, UNITS, batch_first=True)
        self.readout = nn.Linear(UNITS + RANK + UNITS, 2 * MAXOUT)
        self.down, self.logits = nn.Linear(MAXOUT, RANK), nn.Linear(RANK, WORDS)

    def encode(self, source):
        context = self.encoder(self.source(source))[1][0]
        return torch.tanh(self.initial(context)), context

    def words(self, state, embedded, context):
        wide = self.readout(torch.cat([state, embedded, context], -1))
        return self.logits(self.down(wide.unflatten(-1, (MAXOUT, 2)).amax(-1)))

    def forward(self, source, target):
        state, context = self.encode(source)
        embedded = self.target(nn.functional.pad(target[:, :-1], (1, 0)))
        contexts = context[:, None].expand(-1, embedded.shape[1], -1)
        states = self.decoder(torch.cat([embedded, contexts], -1), state[None])[0]
        return self.words(states, embedded, contexts)

    @torch.inference_mode()
    def search(self, source, width, length):
        """Ids (N, length) of the best of `width` hypotheses."""
        count = len(source)
        state, context = (each.repeat_interleave(width, 0) for each in self.encode(source))
        previous = torch.zeros(count * width, dtype=torch.long)
        # At first all hypotheses are one.
        scores = torch.full((count, width), -torch.inf)
        scores[:, 0] = 0
        ids = torch.zeros(count, width, 0, dtype=torch.long)
        ended = torch.zeros(count, width, dtype=torch.bool)
        for _ in range(length):
            embedded = self.target(previous)
            state = self.cell(torch.cat([embedded, context], 1), state)
            likely = torch.log_softmax(self.words(state, embedded, context), -1).view(count, width, -1)
            stays = torch.full_like(likely[:, :1], -torch.inf)
            stays[..., 0] = 0
            likely = torch.where(ended[..., None], stays, likely)
            scores, chosen = (scores[..., None] + likely).flatten(1).topk(width)
            parent, word = chosen // WORDS, chosen % WORDS
            ids = torch.cat([ids.gather(1, parent[..., None].expand_as(ids)), word[..., None]], 2)
            ended = ended.gather(1, parent) | (word == 0)
            state = state[(parent + width * torch.arange(count)[:, None]).flatten()]
            previous = word.flatten()
            if ended.all():
                break
        return ids[:, 0]


def prepare(job):
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    network, length = Network(), job["length"]
    source = torch.randint(2, WORDS, (job["batch"], length))
    source[:, -1] = 0
    facts = {"versions": {"torch": torch.__version__}, "tokens": job["batch"] * length}
    if job["task"] == "train":
        target = torch.randint(2, WORDS, (job["batch"], length))
        target[:, -1] = 0
        optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0, rho=0.95, eps=1e-6)

        def step():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(source, target).flatten(0, 1), target.flatten(), reduction="sum")
            (loss / job["batch"]).backward()
            optimizer.step()
            return float(loss)

        return step, facts
    network.eval()
    if job.get("int8"):
        network = torch.ao.quantization.quantize_dynamic(network, {nn.GRU, nn.GRUCell, nn.Linear}, dtype=torch.qint8)
    return lambda: network.search(source, 5, length), facts


if __name__ == "__main__":
    serve(prepare)
