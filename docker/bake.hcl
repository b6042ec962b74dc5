# Both images for two platforms, with an SBOM and the provenance of the build:
#   make image-release REGISTRY=registry.example.org
variable "REGISTRY" { default = "registry.example.org" }
variable "TAG" { default = "latest" }
variable "REVISION" { default = "unknown" }

group "default" {
  targets = ["service", "worker"]
}

target "common" {
  context   = "."
  platforms = ["linux/amd64", "linux/arm64"]
  args = {
    VERSION  = TAG
    REVISION = REVISION
  }
  # BuildKit reads the packages of the finished image (SPDX), and says how it was built (SLSA).
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "service" {
  inherits   = ["common"]
  dockerfile = "docker/service.Dockerfile"
  tags       = ["${REGISTRY}/nnpm-service:${TAG}"]
}

target "worker" {
  inherits   = ["common"]
  dockerfile = "docker/worker.Dockerfile"
  tags       = ["${REGISTRY}/nnpm-worker:${TAG}"]
}
