# docker build -t tfinpaint . && docker run --rm tfinpaint horovodrun -np 2 python -m tfinpaint.canary
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# A proxy's certificate bundle for pip, where there is one.
ARG PIP_CERT
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates g++ openssh-client python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --shell /bin/bash tfinpaint && install -d -o tfinpaint /opt/tfinpaint
USER tfinpaint
WORKDIR /opt/tfinpaint
COPY --chown=tfinpaint . .
# Builds Horovod and checks it with two ranks; the image is not made where they do not train as one.
RUN TFINPAINT_CACHE=/tmp/tfinpaint-cache scripts/setup && rm -rf /tmp/tfinpaint-cache ~/.cache
ENV PATH=/opt/tfinpaint/.venv/bin:$PATH
CMD ["tfinpaint", "--help"]
