broker "mqtt" "house" {
  url        = env("NOT_SET")
  username   = env()
  password   = env("A", "b", "c")
  servers    = [envv("SECRET")]
  properties = { a = file("../files.go"), b = file("none.pem"), c = file(env("SECRET")) }
}
