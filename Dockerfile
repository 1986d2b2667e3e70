# tfinpaint on one or many ranks; docs/docker.md says how the image is used, containers/steps how it is made.
#
#   docker build -t tfinpaint .
#   docker run --rm tfinpaint horovodrun -np 2 python -m tfinpaint.canary
#
# --build-arg BASE=...      a Debian or Ubuntu with Python 3.11 to 3.13 (default debian:bookworm-slim)
# --build-arg UID=...       of the user tfinpaint (default 1000)
# --target sshd             with an SSH server, for the workers of Kubernetes' MPI operator
# --target tests            with the tests, which it runs
#
# For GPUs (not tried): BASE an image of CUDA's development files and NCCL, EXTRA=gpu, HOROVOD_GPU_OPERATIONS=NCCL.
ARG BASE=debian:bookworm-slim

# What takes minutes, the dependencies and Horovod, is made here without the sources: they change, this stays.
FROM ${BASE} AS dependencies
# A proxy's certificate bundle for pip, where there is one.
ARG PIP_CERT
WORKDIR /opt/tfinpaint
COPY containers/steps containers/
RUN containers/steps build-packages
ARG EXTRA=cpu
ARG HOROVOD_GPU_OPERATIONS
COPY requirements.txt requirements-gpu.txt setup.py ./
COPY scripts/setup scripts/patch_horovod.py scripts/
RUN TFINPAINT_EXTRA=${EXTRA} containers/steps dependencies && containers/steps trim

FROM ${BASE} AS tfinpaint
WORKDIR /opt/tfinpaint
COPY containers/steps containers/
RUN containers/steps run-packages
ARG UID=1000
RUN containers/steps user ${UID}
ENV PATH=/opt/tfinpaint/.venv/bin:${PATH}
COPY --from=dependencies /opt/tfinpaint/.venv .venv
COPY LICENSE README.md pyproject.toml setup.py ./
COPY configs configs
COPY tfinpaint tfinpaint
# Everything but runs/ belongs to root: what runs in the container cannot change the program.
RUN containers/steps program
USER tfinpaint
RUN containers/steps check
CMD ["tfinpaint", "--help"]
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="tfinpaint" \
      org.opencontainers.image.description="Pretrain an image encoder without labels by inpainting, on many ranks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM tfinpaint AS sshd
USER root
# The keys are mounted at ~/.ssh when the container starts (the MPI operator does that; every worker has the same),
# so host keys are not checked against a list. The port needs no root. A session gets no ENV of the image: hence SetEnv.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-server \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && printf '%s\n' "Port 2222" "HostKey /home/tfinpaint/.ssh/id_rsa" "AuthorizedKeysFile .ssh/authorized_keys" \
      "StrictModes no" "UsePAM no" "PasswordAuthentication no" "PidFile none" "SetEnv PATH=${PATH}" \
      >/etc/ssh/sshd_config.d/tfinpaint.conf \
 && printf '%s\n' "Host *" "  Port 2222" "  StrictHostKeyChecking no" "  UserKnownHostsFile /dev/null" \
      "  LogLevel ERROR" >/etc/ssh/ssh_config.d/tfinpaint.conf
USER tfinpaint
CMD ["/usr/sbin/sshd", "-De"]

FROM tfinpaint AS tests
USER root
ARG PIP_CERT
COPY . .
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt
USER tfinpaint
CMD ["python", "-m", "pytest", "-p", "no:cacheprovider"]

# The last stage is what is built where no --target is named.
FROM tfinpaint
