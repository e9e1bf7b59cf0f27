"""PyTorch's side of the benchmark of adversarial training, as workers of `interleaved`; jobs: cyclegan, wgan.

Networks and steps are laid out as in the authors' PyTorch code; everything is written anew.
"""

import random

import torch
from interleaved import Job, Prepared, serve
from torch import nn


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    step = _cyclegan(job) if job["task"] == "cyclegan" else _wgan(job)
    return step, {"versions": {"torch": torch.__version__}}


# --- CycleGAN ---------------------------------------------------------------------------------------------------------


class _Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        other = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.parts = nn.Sequential(*half, nn.ReLU(True), *other)

    def forward(self, x):
        return x + self.parts(x)


def _generator(blocks):
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, 64, 7), nn.InstanceNorm2d(64), nn.ReLU(True)]
    for n in (64, 128):
        layers += [nn.Conv2d(n, 2 * n, 3, 2, 1), nn.InstanceNorm2d(2 * n), nn.ReLU(True)]
    layers += [_Block(256) for _ in range(blocks)]
    for n in (256, 128):
        layers += [nn.ConvTranspose2d(n, n // 2, 3, 2, 1, 1), nn.InstanceNorm2d(n // 2), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(64, 3, 7), nn.Tanh())


def _judge():
    layers = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for n, stride in ((64, 2), (128, 2), (256, 1)):
        layers += [nn.Conv2d(n, 2 * n, 4, stride, 1), nn.InstanceNorm2d(2 * n), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


class _Pool:
    def __init__(self, size=50):
        self.size, self.kept = size, []

    def __call__(self, picture):
        if len(self.kept) < self.size:
            self.kept.append(picture)
            return picture
        if random.random() < 0.5:
            return picture
        place = random.randrange(self.size)
        old, self.kept[place] = self.kept[place], picture
        return old


def _cyclegan(job):
    size, layout = job["size"], torch.channels_last if job.get("channels_last") else torch.contiguous_format
    forth, back = (_generator(job["blocks"]).to(memory_format=layout) for _ in range(2))
    discriminator_a, discriminator_b = (_judge().to(memory_format=layout) for _ in range(2))
    discriminators = [*discriminator_a.parameters(), *discriminator_b.parameters()]
    makers = torch.optim.Adam([*forth.parameters(), *back.parameters()], 2e-4, (0.5, 0.999))
    discriminators_optimizer = torch.optim.Adam(discriminators, 2e-4, (0.5, 0.999))
    a, b = (torch.rand(1, 3, size, size).mul(2).sub(1).to(memory_format=layout) for _ in range(2))
    pools, square, distance = (_Pool(), _Pool()), nn.MSELoss(), nn.L1Loss()

    def against(scores, label):
        return square(scores, torch.full_like(scores, label))

    def step():
        as_b, as_a = forth(a), back(b)
        home_a, home_b = back(as_b), forth(as_a)
        for parameter in discriminators:
            parameter.requires_grad_(False)
        makers.zero_grad()
        loss = against(discriminator_b(as_b), 1.0) + against(discriminator_a(as_a), 1.0)
        loss = loss + 10 * (distance(home_a, a) + distance(home_b, b))
        loss = loss + 5 * (distance(forth(b), b) + distance(back(a), a))
        loss.backward()
        makers.step()
        for parameter in discriminators:
            parameter.requires_grad_(True)
        discriminators_optimizer.zero_grad()
        for discriminator, real, fake, pool in (
            (discriminator_a, a, as_a, pools[0]),
            (discriminator_b, b, as_b, pools[1]),
        ):
            wrong = 0.5 * (against(discriminator(real), 1.0) + against(discriminator(pool(fake.detach())), 0.0))
            wrong.backward()
        discriminators_optimizer.step()
        return float(loss)

    return step


# --- WGAN -------------------------------------------------------------------------------------------------------------


def _wgan(job):
    """One step: five updates of the critic, weights clipped, and one of the generator; 64 x 64 pixels."""
    batch = job["batch"]
    layers = [nn.ConvTranspose2d(100, 512, 4, 1, 0, bias=False), nn.BatchNorm2d(512), nn.ReLU(True)]
    for n in (512, 256, 128):
        layers += [nn.ConvTranspose2d(n, n // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(n // 2), nn.ReLU(True)]
    generator = nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())
    layers = [nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for n in (64, 128, 256):
        layers += [nn.Conv2d(n, 2 * n, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * n), nn.LeakyReLU(0.2, True)]
    critic = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, bias=False))
    rules = [torch.optim.RMSprop(net.parameters(), 5e-5) for net in (generator, critic)]
    pictures = torch.rand(5, batch, 3, 64, 64) * 2 - 1

    def step():
        for parameter in critic.parameters():
            parameter.requires_grad_(True)
        for real in pictures:
            with torch.no_grad():
                fake = generator(torch.randn(batch, 100, 1, 1))
            rules[1].zero_grad()
            (critic(fake).mean() - critic(real).mean()).backward()
            rules[1].step()
            for parameter in critic.parameters():
                parameter.data.clamp_(-0.01, 0.01)
        for parameter in critic.parameters():
            parameter.requires_grad_(False)
        rules[0].zero_grad()
        loss = -critic(generator(torch.randn(batch, 100, 1, 1))).mean()
        loss.backward()
        rules[0].step()
        return float(loss)

    return step


if __name__ == "__main__":
    serve(prepare)
