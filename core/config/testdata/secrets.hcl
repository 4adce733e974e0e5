# Nothing that is secret is in what this gives: neither what is written here, nor what is got from elsewhere.
site "s" {
  data_dir = env("SECRET")
}
listen {
  fbp = "127.0.0.1:${env("SECRET")}"
}
broker "mqtt" "literal" {
  url      = "http://user:hunter2-in-url@127.0.0.1:1883"
  password = "leak-hunter2-literal"
  tls {
    key = <<EOT
hunter2-in-heredoc
EOT
    server_name = "bad"
  }
}
broker "mqtt" "misspelt" {
  url       = "mqtt://user:hunter2-in-second-url@127.0.0.1:1883"
  pasword   = "hunter2-misspelt"
  passwords = ["hunter2-list", 5 + "hunter2-added"]
}
broker "unknown" "type" {
  whatever = "hunter2-unknown" + 5
}
broker "mqtt" "environment" {
  url        = env("SECRET")
  password   = "leak-${env("SECRET")}"
  version    = env("SECRET")
  keep_alive = env("SECRET")
  clean      = env("SECRET")
  servers    = env("SECRET")
  properties = { (env("SECRET")) = null }
}
participant "p" {
  component = format("demo/%s", env("SECRET"))
  broker    = broker.mqtt.literal
  command   = ["program", env("SECRET")]
  env       = { "A=B" = env("SECRET") }
  inport "in" {
    address = jsonencode({ a = env("SECRET") })
    qos     = env("SECRET")
  }
}
edge "a.b" "c.d" {
  window  = env("SECRET")
  require = split("-", env("SECRET"))[7]
}
