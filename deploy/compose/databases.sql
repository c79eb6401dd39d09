-- The database `queue` is made by the image. Each part has one of its own.
CREATE DATABASE catalog;
CREATE DATABASE mlflow;
CREATE DATABASE airflow;
