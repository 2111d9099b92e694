# `spillway serve` for a container service: see "Heavy traffic" in docs/deploy.md.
#
#     cargo lambda build --release --arm64 -p spillway-command --bin spillway --lambda-dir target/image
#     docker build --platform linux/arm64 -f Dockerfile -t spillway target/image/spillway
#
# The binary is built before, so that a cross build needs no emulation. It needs glibc 2.34 and CA
# certificates, and no shell.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot
FROM ${BASE}
COPY bootstrap /spillway
# The user `nonroot` of distroless.
USER 65532:65532
ENV AWS_LAMBDA_LOG_FORMAT=JSON
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/spillway", "health"]
ENTRYPOINT ["/spillway"]
CMD ["serve", "--host", "0.0.0.0"]
