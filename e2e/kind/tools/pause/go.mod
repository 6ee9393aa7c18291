module tollgate.dev/e2e/kind/tools/pause

go 1.26.0
