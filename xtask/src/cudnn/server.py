"""Times PyTorch with cuDNN on request: a line `NETWORK BATCH PRECISION` in, milliseconds out.

The best of NCHW and channels-last, batch-norm folded, replayed as a CUDA graph; the median of 50 replays. A precision is
f32 (tf32 switched off), tf32 or f16.
"""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.backends.cudnn.benchmark = True


def block(i, o, k=3, s=1, g=1, relu=True):
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [], 3
        for width in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers.append(block(channels, width))
                channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Basic(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.first, self.second = block(i, o, 3, stride), block(o, o, 3, relu=False)
        self.shortcut = nn.Sequential() if stride == 1 and i == o else block(i, o, 1, stride, relu=False)

    def forward(self, x):
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [block(3, 64)], 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Basic(channels, width, stride), Basic(width, width, 1)]
            channels = width
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(512, 10)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        layers, channels = [block(3, 32)], 32
        for width in (64, (128, 2), 128, (256, 2), 256, (512, 2), 512, 512, 512, 512, 512, (1024, 2), 1024):
            width, stride = width if isinstance(width, tuple) else (width, 1)
            layers += [block(channels, channels, 3, stride, channels), block(channels, width, 1)]
            channels = width
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(1024, 10)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


NETWORKS = {"vgg16-cifar10": Vgg, "resnet18-cifar10": ResNet, "mobilenet-cifar10": MobileNet}


def fold(model):
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = nn.utils.fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return model


def captured(network, batch, precision, channels_last):
    allow = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow
    model = fold(NETWORKS[network]().cuda().eval())
    x = torch.randn(batch, 3, 32, 32, device="cuda")
    if precision == "f16":
        model, x = model.half(), x.half()
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(10):
            model(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = model(x)
    return graph, stream, (model, x, y)


def median_ms(graph, stream):
    times = []
    for index in range(60):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        start.record(stream)
        with torch.cuda.stream(stream):
            graph.replay()
        end.record(stream)
        end.synchronize()
        if index >= 10:
            times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def main():
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}", flush=True)
    graphs = {}
    for line in sys.stdin:
        network, batch, precision = line.split()
        key = (network, batch, precision)
        if key not in graphs:
            graphs.clear()
            graphs[key] = [captured(network, int(batch), precision, last) for last in (False, True)]
        print(min(median_ms(graph, stream) for graph, stream, _ in graphs[key]), flush=True)


main()
