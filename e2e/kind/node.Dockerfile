# The kind node without its component images, which node-image loads into a running copy of it.
# Does what kind's own base image does, on a root file system of Debian packages.
ARG ROOTFS
FROM ${ROOTFS}
COPY kind-base /
COPY node /
COPY bin/kubelet bin/kubectl bin/kubeadm /usr/bin/
RUN set -e; \
    find /lib/systemd/system/sysinit.target.wants -name systemd-tmpfiles-setup.service -delete; \
    rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* \
      /lib/systemd/system/local-fs.target.wants/* /lib/systemd/system/sockets.target.wants/*udev* \
      /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/*; \
    echo ReadKMsg=no >>/etc/systemd/journald.conf; \
    systemctl enable kubelet.service containerd.service undo-mount-hacks.service; \
    systemctl mask systemd-binfmt.service; \
    ln -sf /usr/lib/systemd/systemd /sbin/init; \
    ln -sf /usr/bin/containerd /usr/local/bin/containerd; \
    mkdir -p /etc/kubernetes/manifests /opt/cni; \
    ln -sfn /usr/lib/cni /opt/cni/bin; \
    ctr oci spec \
      | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
      >/etc/containerd/cri-base.json; \
    : without the capability to lower it, containers must not ask for a lower OOM score; \
    sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml; \
    grep -q 'restrict_oom_score_adj = true' /etc/containerd/config.toml
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
